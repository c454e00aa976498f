package env

import (
	"errors"
	"fmt"
)

var (
	// ErrUnsupported: the declaration names a field or resource that this node cannot give.
	ErrUnsupported = errors.New("unsupported")
	// ErrValue: the value exists but cannot be put into an environment.
	ErrValue = errors.New("unusable value")
)

// MissingError says that an object which the container needs does not exist, or lacks a key. Its text is the kubelet's, so
// that people find what they know from other nodes.
type MissingError struct {
	// Kind is "Secret" or "ConfigMap".
	Kind string
	// Namespace and Name identify the object.
	Namespace, Name string
	// Key is the missing key; empty if the object itself is missing.
	Key string
	// Err is the API's answer, if the object itself is missing.
	Err error
}

// Error implements error.
func (e *MissingError) Error() string {
	if e.Key == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("couldn't find key %s in %s %s/%s", e.Key, e.Kind, e.Namespace, e.Name)
}

// Unwrap returns the API's answer.
func (e *MissingError) Unwrap() error { return e.Err }
