package preflight

import "errors"

var (
	// ErrRole: there is no such role.
	ErrRole = errors.New("unknown role")
	// ErrPath: a path is not absolute.
	ErrPath = errors.New("want an absolute path")
)
