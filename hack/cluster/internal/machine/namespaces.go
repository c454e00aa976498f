package machine

import (
	"fmt"
	"runtime"

	"github.com/sidemount/sidemount/hack/cluster/internal/process"
	"golang.org/x/sys/unix"
)

// joined are the namespaces that Do enters: all but the user and time namespaces, which a machine shares with the host.
const joined = unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Do runs f on a thread that has entered the namespaces of the process holder. Processes that f starts are born there;
// f itself keeps the pid that it has. f must not start goroutines that count on the namespaces.
func Do(holder process.Ref, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread cannot go back to where it came from. It stays locked, so that it ends with the goroutine instead
		// of serving others.
		runtime.LockOSThread()
		result <- enter(holder, f)
	}()
	return <-result
}

func enter(holder process.Ref, f func() error) error {
	fd, err := holder.Open()
	if err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	defer unix.Close(fd)
	// The kernel moves only threads that share root and working directory with no other thread into a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	if err := unix.Setns(fd, joined); err != nil {
		return fmt.Errorf("enter namespaces of pid %d: %w", holder.PID, err)
	}
	return f()
}
