package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Usage is what a file system says of its size.
type Usage struct{ Bytes, Inodes Amount }

// Amount is in bytes or in inodes. Available is what an ordinary user may still take.
type Amount struct{ Total, Available, Used int64 }

// figures asks mounts for their usage. A mount may never answer, and who waits for it cannot always be killed: it is a process of its own
// that asks, one for each mount at a time.
type figures struct {
	program string
	timeout time.Duration

	mu     sync.Mutex           // guards asking
	asking map[string]*question // by device
}

// question is a process that asks a mount.
type question struct {
	asked    time.Time
	answered chan struct{} // closed when usage and err are set
	usage    Usage
	err      error
}

// of returns the usage of a mount, of which path is one place and device the name. It waits for the timeout at most, and not at all if an
// earlier question is overdue.
func (f *figures) of(ctx context.Context, device, path string) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	q, overdue := f.ask(device, path)
	if overdue {
		return Usage{}, fmt.Errorf("%w, not even to a question of more than %s ago", errSilent, f.timeout)
	}
	select {
	case <-q.answered:
		return q.usage, q.err
	case <-ctx.Done():
		return Usage{}, fmt.Errorf("%w within %s", errSilent, f.timeout)
	}
}

var errSilent = errors.New("the volume does not answer")

// ask returns the question that is being asked, a new one if there is none.
func (f *figures) ask(device, path string) (q *question, overdue bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q = f.asking[device]; q != nil {
		return q, time.Since(q.asked) > f.timeout
	}
	q = &question{asked: time.Now(), answered: make(chan struct{})}
	if f.asking == nil {
		f.asking = map[string]*question{}
	}
	f.asking[device] = q
	// It ends when the mount answers or is aborted, which the session's broker sees to.
	go func() {
		q.usage, q.err = f.run(path)
		f.mu.Lock()
		delete(f.asking, device)
		f.mu.Unlock()
		close(q.answered)
	}()
	return q, false
}

// run asks in a child, which is killed after the timeout. A child whose request has been taken by a client that does not answer outlives
// its killing.
func (f *figures) run(path string) (Usage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.program, "statfs", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.Output()
	if err != nil {
		return Usage{}, fmt.Errorf("the volume does not tell its figures: %w", statfsError(err))
	}
	var u Usage
	if err := json.Unmarshal(out, &u); err != nil {
		return Usage{}, fmt.Errorf("read the volume's figures: %w", err)
	}
	return u, nil
}

// statfsError makes an error of the child's exit code, which is an error number.
func statfsError(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if code := exit.ExitCode(); code > 1 {
		return syscall.Errno(code)
	}
	return errors.New(exit.String())
}
