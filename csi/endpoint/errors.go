package endpoint

import "errors"

// ErrInUse means that another process answers on the socket.
var ErrInUse = errors.New("another driver serves this socket")
