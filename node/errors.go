package node

import (
	"errors"
	"net/http"
)

// Errors that callers of this package, or the implementations of its interfaces, tell apart.
var (
	// ErrInvalid: an option is wrong; the node cannot start with it.
	ErrInvalid = errors.New("invalid node option")
	// ErrNotFound: there is no such pod or container. The HTTPS API answers 404.
	ErrNotFound = errors.New("not found")
	// ErrBadRequest: the request cannot be served in the present state of the pod. The HTTPS API answers 400.
	ErrBadRequest = errors.New("bad request")
	// ErrBusy: the runtime has too many streams in flight. The HTTPS API answers 429.
	ErrBusy = errors.New("too many requests in flight")
	// ErrStale: the checks of the node's health do not end; the node must not claim to be alive.
	ErrStale = errors.New("health checks are stale")
)

// statusOf is the one place where errors become HTTP codes.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, ErrBusy):
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

// publicError is an error whose text is exactly what the kubelet would answer, while errors.Is still finds its kind.
type publicError struct {
	kind error
	text string
}

func (e *publicError) Error() string { return e.text }
func (e *publicError) Unwrap() error { return e.kind }
