package session

import "errors"

// Errors that callers tell apart. Those about a volume are *sidecar.Error.
var (
	// ErrOptions: a required option is missing.
	ErrOptions = errors.New("incomplete options")
)
