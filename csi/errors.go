package csi

import "errors"

// ErrInUse means that another process answers on the endpoint's socket.
var ErrInUse = errors.New("endpoint in use")
