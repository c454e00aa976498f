package volumes

import (
	"context"
	"fmt"
	"syscall"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// failed turns an errno that nobody has handled into an error. JuiceFS answers EIO for every error of a driver.
func failed(ctx context.Context, action string, st syscall.Errno) error {
	if err := callerOf(ctx).Err(); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	switch st {
	case syscall.EIO, syscall.EINTR, syscall.EAGAIN:
		return fmt.Errorf("%w: metadata engine: %s; see the worker's log", mount.ErrUnavailable, action)
	case syscall.ENOSPC, syscall.EDQUOT:
		return fmt.Errorf("%w: %s: %w", admin.ErrFull, action, st)
	}
	return fmt.Errorf("%s: %w", action, st)
}
