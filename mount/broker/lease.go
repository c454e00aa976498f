package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A lease is a pipe that nobody writes to. An agent and its client hold the writing end, so that the reading end sees its end exactly when the last process
// has gone that could still answer a request: closing the agent's connection does not say that much.

// newLease returns both ends.
func newLease() (hold, watch *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, fmt.Errorf("make a lease: %w", err)
	}
	return os.NewFile(uintptr(fds[1]), "lease"), os.NewFile(uintptr(fds[0]), "lease"), nil
}

// isLease tells whether a file that an agent has deposited is the reading end of a pipe.
func isLease(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY && flags&unix.O_NONBLOCK != 0
}

// released waits until nobody holds the lease.
func released(ctx context.Context, watch *os.File) error {
	if watch == nil {
		return nil
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		watch.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-fired
		}
		watch.SetReadDeadline(time.Time{})
	}()
	var one [1]byte
	n, err := watch.Read(one[:])
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil && n > 0:
		return errors.New("somebody writes to the lease")
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("an earlier client is still there: %w", ctx.Err())
	}
	return fmt.Errorf("wait for an earlier client: %w", err)
}
