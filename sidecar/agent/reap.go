package agent

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper is the only place in the process that waits for children: as pid 1 of a container the agent inherits orphans, and two waiters would steal from
// each other.
type reaper struct {
	signals chan os.Signal
	stopped chan struct{}

	mu       sync.Mutex // guards children; held while a child is started, so that its end cannot be missed
	children map[int]chan<- syscall.WaitStatus
}

func newReaper() (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	r := &reaper{signals: make(chan os.Signal, 1), stopped: make(chan struct{}), children: map[int]chan<- syscall.WaitStatus{}}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.run()
	return r, nil
}

func (r *reaper) close() {
	signal.Stop(r.signals)
	close(r.signals)
	<-r.stopped
}

func (r *reaper) run() {
	defer close(r.stopped)
	for range r.signals {
		r.reap()
	}
}

func (r *reaper) reap() {
	for {
		var status syscall.WaitStatus
		r.mu.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		ended := r.children[pid]
		delete(r.children, pid)
		r.mu.Unlock()
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended != nil {
			ended <- status
		}
	}
}

// start runs fork; the status of the child that it makes arrives in the returned channel.
func (r *reaper) start(fork func() (int, error)) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.children[pid] = ended
	return pid, ended, nil
}
