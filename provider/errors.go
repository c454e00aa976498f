package provider

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that callers tell apart.
var (
	// ErrContainerConfig: the container cannot be configured as its specification says, for example because a Secret is
	// missing. Runtime.CreateContainer wraps it; the container waits with the reason CreateContainerConfigError.
	ErrContainerConfig = errors.New("CreateContainerConfigError")
	// ErrRuntimeNotReady: the runtime's network is not ready; a sandbox is not to be tried yet.
	ErrRuntimeNotReady = errors.New("NetworkNotReady")
	// ErrUnknownPod: the engine has no such pod.
	ErrUnknownPod = errors.New("pod not found")
	// errEngineDeletes is the cause of the Conflict that PodClient answers to a deletion.
	errEngineDeletes = errors.New("the pod is deleted when everything of it has ended")
)

// PrepareError says in a user's words why a pod cannot be prepared.
type PrepareError struct {
	// Reason is the event's reason, for example "FailedMount".
	Reason string
	// Message names the object, the field and the cure.
	Message string
	// Retry is the pause before the next attempt; 0 leaves it to the engine's back-off, 1 s doubling to 30 s.
	Retry time.Duration
	// Err is the cause, if there is one.
	Err error
}

func (e *PrepareError) Error() string { return e.Message }

func (e *PrepareError) Unwrap() error { return e.Err }

// ConfigError makes err one that the container's specification is to blame for; its text stays.
func ConfigError(err error) error { return &configError{err} }

type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }

func (e *configError) Unwrap() []error { return []error{ErrContainerConfig, e.err} }

// reasonedError carries the reason that a waiting container shows, as the kubelet names it.
type reasonedError struct {
	reason  string
	message string
}

func (e *reasonedError) Error() string { return fmt.Sprintf("%s: %s", e.reason, e.message) }

// reasonOf returns the reason and the message of err for a waiting container.
func reasonOf(err error, fallback string) (reason, message string) {
	var r *reasonedError
	if errors.As(err, &r) {
		return r.reason, r.message
	}
	return fallback, err.Error()
}

// isCancelled reports whether err only says that nobody waits for the result any more.
func isCancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
