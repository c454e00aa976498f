package fuse

import "errors"

var (
	// ErrProtocol: the kernel, or an INIT message on its way, said something that this package does not understand.
	ErrProtocol = errors.New("not a FUSE message")
	// ErrNotMounted: there is no FUSE mount at the path.
	ErrNotMounted = errors.New("not a FUSE mount")
)
