package volumes

import (
	"context"
	"fmt"
	"sync"

	"github.com/sidemount/sidemount/mount/admin"
)

// locks serializes commands of this process on the same thing. Workers in other processes need none of it; it saves work and
// makes answers plain.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when it is let go
}

// lock waits for the key until ctx ends; then something else is under way. The returned function lets go.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		if l.held == nil {
			l.held = make(map[string]chan struct{})
		}
		other, taken := l.held[key]
		if !taken {
			free := make(chan struct{})
			l.held[key] = free
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(free)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s", admin.ErrBusy, key)
		}
	}
}
