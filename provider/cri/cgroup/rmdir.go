package cgroup

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// rmdir is the system call alone: os.Remove would first try to unlink.
func rmdir(dir string) error {
	for {
		err := unix.Rmdir(dir)
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY):
			return fmt.Errorf("%w: %s", ErrBusy, dir)
		default:
			return fmt.Errorf("rmdir %s: %w", dir, err)
		}
	}
}
