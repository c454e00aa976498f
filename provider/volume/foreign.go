package volume

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// foreign runs calls into file systems of somebody else. Such a call can hang as long as that file system's server does, and
// no signal ends it; so it has a goroutine of its own, which is given up after the deadline and ends when the file system
// answers or is aborted. At most one such goroutine exists per key.
type foreign struct {
	deadline time.Duration

	// mu guards busy: a channel that is closed when the call for that key has ended.
	mu   sync.Mutex
	busy map[string]chan struct{}
}

func newForeign(deadline time.Duration) *foreign {
	return &foreign{deadline: deadline, busy: map[string]chan struct{}{}}
}

// begin waits for its turn and reports whether it came before ctx ended.
func (f *foreign) begin(ctx context.Context, key string) bool {
	for {
		f.mu.Lock()
		earlier, busy := f.busy[key]
		if !busy {
			f.busy[key] = make(chan struct{})
		}
		f.mu.Unlock()
		if !busy {
			return true
		}
		select {
		case <-earlier:
		case <-ctx.Done():
			return false
		}
	}
}

func (f *foreign) end(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.busy[key])
	delete(f.busy, key)
}

// do calls the function and returns what it returned, or ErrStalled when the deadline or ctx ends first, be it in wait for an
// earlier call for the key. A result that comes too late goes to discard, if that is not nil.
func do[T any](ctx context.Context, f *foreign, key string, call func() (T, error), discard func(T)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeout(ctx, f.deadline)
	defer cancel()
	if !f.begin(ctx, key) {
		return none, fmt.Errorf("%s: an earlier access still waits: %w", key, ErrStalled)
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer)
	go func() {
		value, err := call()
		f.end(key)
		select {
		case answers <- answer{value, err}:
		case <-ctx.Done():
			if err == nil && discard != nil {
				discard(value)
			}
		}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", key, ErrStalled)
	}
}
