package logs

import "errors"

// errLimit ends a reading that has written all bytes that it may.
var errLimit = errors.New("byte limit reached")
