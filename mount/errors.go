package mount

import "errors"

// Errors that callers tell apart. Everything else is an internal error.
var (
	// ErrNotFound: there is no such session.
	ErrNotFound = errors.New("session not found")
	// ErrClosed: the session has ended and cannot be used again.
	ErrClosed = errors.New("session closed")
	// ErrRefused: the peer is not who it must be, or its message breaks the protocol.
	ErrRefused = errors.New("peer refused")
	// ErrConfig: the volume's description is wrong; retrying helps only after somebody has changed it.
	ErrConfig = errors.New("volume misconfigured")
	// ErrUnavailable: something that the volume needs (metadata engine, object store) does not answer; retrying may help.
	ErrUnavailable = errors.New("volume unavailable")
)
