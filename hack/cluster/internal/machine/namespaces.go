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
	go onThrowawayThread(func() { result <- enter(holder, f) })
	return <-result
}

// onThrowawayThread calls f on a thread that ends with the calling goroutine, because it cannot go back to the namespaces
// that it came from. The first thread of a process does not end, it would keep the namespaces alive as long as the process
// lives: when the goroutine happens to be on that one, it holds it back and lets another take over.
func onThrowawayThread(f func()) {
	runtime.LockOSThread() // never unlocked, which is what ends the thread
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThrowawayThread(f)
	}()
	<-done
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
