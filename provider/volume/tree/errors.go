package tree

import "errors"

var (
	// ErrEscape: the path leaves its directory by "..", an absolute symbolic link or a magic link.
	ErrEscape = errors.New("path leaves its directory")
	// ErrMounted: a mount is in the way of removal.
	ErrMounted = errors.New("still mounted")
)
