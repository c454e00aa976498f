package broker

import (
	"context"
	"sync"
	"time"
)

// budget bounds how often something is done because a tenant's process gives cause to it: burst times at once, and then once in every pause.
type budget struct {
	burst int
	every time.Duration

	mu   sync.Mutex // guards what follows
	used time.Time  // when what has been taken so far is paid for
}

// wait takes one, and returns when it may be used or ctx ends.
func (b *budget) wait(ctx context.Context) error {
	d := b.take(time.Now())
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take takes one and tells how long to wait for it.
func (b *budget) take(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	b.used = b.used.Add(b.every)
	return max(0, b.used.Sub(now))
}

// allows takes one if that needs no wait.
func (b *budget) allows() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.refill(now)
	next := b.used.Add(b.every)
	if next.After(now) {
		return false
	}
	b.used = next
	return true
}

func (b *budget) refill(now time.Time) {
	if full := now.Add(-time.Duration(b.burst) * b.every); b.used.Before(full) {
		b.used = full
	}
}
