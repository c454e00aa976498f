package volumes

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sidemount/sidemount/mount/admin"
)

// jobs are copies that outlast the command that wanted them. One that has failed is forgotten after it has been told, and begun
// again when somebody asks again.
type jobs struct {
	mu      sync.Mutex
	all     map[string]*job
	others  int // removals that run
	stopped bool
}

type job struct {
	source string // the ID of the volume or snapshot that is read
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid when done is closed
}

// await joins the job of this key, or begins it, and waits for it at most for patience: then it is admin.ErrBusy.
func (j *jobs) await(ctx context.Context, key, source string, patience time.Duration, work func(context.Context) error) error {
	one, err := j.begin(key, source, work)
	if err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-one.done:
		return one.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("%w: %s is being copied", admin.ErrBusy, source)
}

func (j *jobs) begin(key, source string, work func(context.Context) error) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped {
		return nil, fmt.Errorf("%w: the worker ends", admin.ErrBusy)
	}
	if one, ok := j.all[key]; ok {
		return one, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	one := &job{source: source, cancel: cancel, done: make(chan struct{})}
	if j.all == nil {
		j.all = make(map[string]*job)
	}
	j.all[key] = one
	go func() {
		defer cancel()
		one.err = work(ctx)
		j.mu.Lock()
		delete(j.all, key)
		j.mu.Unlock()
		close(one.done)
	}()
	return one, nil
}

// end cancels the job of this key and waits until it has ended, or until ctx has.
func (j *jobs) end(ctx context.Context, key string) error {
	j.mu.Lock()
	one, ok := j.all[key]
	j.mu.Unlock()
	if !ok {
		return nil
	}
	one.cancel()
	select {
	case <-one.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %s is being copied", admin.ErrBusy, one.source)
	}
}

// reads tells whether a job reads this source.
func (j *jobs) reads(source string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, one := range j.all {
		if one.source == source {
			return true
		}
	}
	return false
}

// count notes that a removal begins or ends.
func (j *jobs) count(n int) {
	j.mu.Lock()
	j.others += n
	j.mu.Unlock()
}

func (j *jobs) running() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.all)+j.others > 0
}

// stop cancels all jobs, waits for them and takes no more.
func (j *jobs) stop() {
	j.mu.Lock()
	j.stopped = true
	var left []*job
	for _, one := range j.all {
		one.cancel()
		left = append(left, one)
	}
	j.mu.Unlock()
	for _, one := range left {
		<-one.done
	}
}
