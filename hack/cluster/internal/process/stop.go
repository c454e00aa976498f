package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
	"golang.org/x/sys/unix"
)

// Stop sends sig, waits for the end of the process up to grace, and then kills it. It returns when the process is gone,
// an error when not even SIGKILL ended it in time.
func (r Ref) Stop(ctx context.Context, sig unix.Signal, grace time.Duration) error {
	if err := r.Signal(sig); err != nil {
		return ignoreGone(err)
	}
	if r.Wait(ctx, grace) == nil {
		return nil
	}
	if err := r.Signal(unix.SIGKILL); err != nil {
		return ignoreGone(err)
	}
	return r.Wait(ctx, 5*time.Second)
}

// Wait returns when the process has ended, or an error after the timeout. A process that became a zombie has ended: who
// reaps it is not ours to decide.
func (r Ref) Wait(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return wait.Until(ctx, 20*time.Millisecond, func(context.Context) error {
		if r.Alive() {
			return fmt.Errorf("pid %d still runs", r.PID)
		}
		return nil
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
