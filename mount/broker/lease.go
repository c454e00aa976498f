package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse"
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
	st, err := fuse.Identify(f)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	// One that came without O_NONBLOCK is not with Go's poller, and nobody could wait for it with a deadline.
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY && f.SetReadDeadline(time.Time{}) == nil
}

// released waits until nobody holds the lease. It never reads: whoever has deposited the lease may make it blocking at any time, and a read would then wait for ever.
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
	raw, err := watch.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for an earlier client: %w", err)
	}
	var state int16
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		state, failed = readiness(int32(fd))
		return failed != nil || state != 0
	})
	switch err = errors.Join(err, failed); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("an earlier client is still there: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("wait for an earlier client: %w", err)
	case state&unix.POLLIN != 0:
		return errors.New("somebody writes to the lease")
	}
	return nil
}

// readiness is what poll(2) says of a pipe's reading end: nothing, POLLIN or POLLHUP.
func readiness(fd int32) (int16, error) {
	p := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, 0); err != unix.EINTR {
			return p[0].Revents, err
		}
	}
}
