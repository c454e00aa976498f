package session

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

// memoryBroker is a broker that mounts nothing: sessions are what somebody has set them to.
type memoryBroker struct {
	mu       sync.Mutex
	sessions map[mount.SessionID]broker.Session
	requests map[mount.SessionID][]broker.Request
	refuse   error
	// handOver answers Upgrade; nil hands over at once.
	handOver func(ctx context.Context, id mount.SessionID, next broker.Successor) (time.Duration, error)
	upgrades []broker.Successor
}

func newMemoryBroker() *memoryBroker {
	return &memoryBroker{sessions: map[mount.SessionID]broker.Session{}, requests: map[mount.SessionID][]broker.Request{}}
}

func (b *memoryBroker) Open(_ context.Context, r broker.Request) (broker.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return broker.Session{}, b.refuse
	}
	b.requests[r.ID] = append(b.requests[r.ID], r)
	s, ok := b.sessions[r.ID]
	if !ok {
		s = broker.Session{ID: r.ID, Volume: r.Volume.ID, VolumeName: r.Volume.Name, Target: r.Target, State: mount.Mounted}
		b.sessions[r.ID] = s
	}
	return s, nil
}

func (b *memoryBroker) Close(_ context.Context, id mount.SessionID, _ time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sessions, id)
	return nil
}

func (b *memoryBroker) Status(id mount.SessionID) (broker.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.sessions[id]
	if !ok {
		return s, fmt.Errorf("session %s: %w", id, mount.ErrNotFound)
	}
	return s, nil
}

func (b *memoryBroker) Upgrade(ctx context.Context, id mount.SessionID, next broker.Successor) (time.Duration, error) {
	b.mu.Lock()
	b.upgrades = append(b.upgrades, next)
	handOver := b.handOver
	b.mu.Unlock()
	pause := 7 * time.Millisecond
	if handOver != nil {
		var err error
		if pause, err = handOver(ctx, id, next); err != nil {
			return 0, err
		}
	}
	b.set(id, func(s *broker.Session) { s.Generation = next.Generation })
	return pause, nil
}

// upgraded returns what the sessions were to be handed over to.
func (b *memoryBroker) upgraded() []broker.Successor {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]broker.Successor(nil), b.upgrades...)
}

func (b *memoryBroker) SocketDir(id mount.SessionID) string {
	return filepath.Join("/run/sidemount/sessions", string(id))
}

func (b *memoryBroker) set(id mount.SessionID, change func(*broker.Session)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[id]
	change(&s)
	b.sessions[id] = s
}

func (b *memoryBroker) lose(id mount.SessionID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sessions, id)
}

// opened returns the requests for a session, oldest first.
func (b *memoryBroker) opened(id mount.SessionID) []broker.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]broker.Request(nil), b.requests[id]...)
}

// objects is a resolver whose volumes somebody has set.
type objects struct {
	mu     sync.Mutex
	mounts []sidecar.Mount
	err    error
}

func (o *objects) Resolve(context.Context, *corev1.Pod) ([]sidecar.Mount, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]sidecar.Mount(nil), o.mounts...), o.err
}

func (o *objects) set(mounts []sidecar.Mount, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mounts, o.err = mounts, err
}
