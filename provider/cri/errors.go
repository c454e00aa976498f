package cri

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors that callers tell apart.
var (
	// ErrNotFound: the runtime has no such sandbox, container or image.
	ErrNotFound = errors.New("not found in the container runtime")
	// ErrUnavailable: the runtime does not answer; nothing is known about the outcome of the call.
	ErrUnavailable = errors.New("container runtime unavailable")
	// ErrTimeout: a command ran longer than it was allowed to.
	ErrTimeout = errors.New("command timed out")
	// ErrUnsupported: the runtime does not know the call.
	ErrUnsupported = errors.New("not supported by the container runtime")
	// ErrConfig: the pod asks for something that cannot be made into a configuration; retrying helps only after a change.
	ErrConfig = errors.New("container cannot be configured")
)

// Errors about images. Their texts are the reasons that a kubelet shows in a waiting container's status.
var (
	// ErrImagePull: the image could not be pulled.
	ErrImagePull = errors.New("ErrImagePull")
	// ErrInvalidImageName: the image's name cannot be parsed.
	ErrInvalidImageName = errors.New("InvalidImageName")
	// ErrRegistryUnavailable: the registry did not answer.
	ErrRegistryUnavailable = errors.New("RegistryUnavailable")
	// ErrSignatureValidation: the image's signature was refused.
	ErrSignatureValidation = errors.New("SignatureValidationFailed")
	// ErrImageNeverPull: the image is absent and the policy forbids to pull it.
	ErrImageNeverPull = errors.New("ErrImageNeverPull")
	// ErrImageInspect: the runtime could not say whether it has the image.
	ErrImageInspect = errors.New("ImageInspectError")
)

// ImageReason returns the kubelet's reason for an error about an image, and ErrImagePull's for any other.
func ImageReason(err error) string {
	for _, e := range []error{ErrInvalidImageName, ErrRegistryUnavailable, ErrSignatureValidation, ErrImageNeverPull, ErrImageInspect} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return ErrImagePull.Error()
}

// refusal is an error of a kind, with a text that is shown to users and therefore does not tell the kind.
type refusal struct {
	kind error
	text string
}

func (e *refusal) Error() string { return e.text }

func (e *refusal) Unwrap() error { return e.kind }

// misfit says what a pod asks for that cannot be configured.
func misfit(format string, args ...any) error {
	return &refusal{kind: ErrConfig, text: fmt.Sprintf(format, args...)}
}

// callError is what the runtime answered. Its text is the runtime's own, without gRPC's decoration, because it ends up in
// events and in the status of pods.
type callError struct {
	action string
	kind   error
	err    error
}

func (e *callError) Error() string {
	return e.action + ": " + Message(e.err)
}

func (e *callError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.err}
	}
	return []error{e.kind, e.err}
}

// Message returns the text of err as the runtime gave it, without what this package and gRPC put around it.
func Message(err error) string {
	var call *callError
	if errors.As(err, &call) {
		err = call.err
	}
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// wrap translates what gRPC returned for action; nil stays nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &callError{action: fmt.Sprintf(format, args...), kind: kindOf(err), err: err}
}

func kindOf(err error) error {
	switch status.Code(err) {
	case codes.NotFound:
		return ErrNotFound
	case codes.Unavailable:
		return ErrUnavailable
	case codes.Unimplemented:
		return ErrUnsupported
	case codes.Unknown:
		// containerd answers some calls that it does not know in this way.
		if strings.Contains(status.Convert(err).Message(), "not implemented") {
			return ErrUnsupported
		}
	}
	return nil
}
