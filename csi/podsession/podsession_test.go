package podsession

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

// memory is a broker whose sessions are names.
type memory struct {
	Broker
	dir string

	mu       sync.Mutex // guards what follows
	sessions map[mount.SessionID]bool
	asked    int
}

func (m *memory) Open(_ context.Context, r broker.Request) (broker.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[r.ID] = true
	return broker.Session{ID: r.ID, State: mount.Mounted, Target: r.Target}, nil
}

func (m *memory) Status(id mount.SessionID) (broker.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if !m.sessions[id] {
		return broker.Session{}, fmt.Errorf("session %s: %w", id, mount.ErrNotFound)
	}
	return broker.Session{ID: id, State: mount.Mounted}, nil
}

func (m *memory) Sessions() []broker.Session                                  { return nil }
func (m *memory) Close(context.Context, mount.SessionID, time.Duration) error { return nil }
func (m *memory) SocketDir(mount.SessionID) string                            { return m.dir }

func newMemory(t *testing.T) (*memory, *Keeper) {
	t.Helper()
	m := &memory{dir: t.TempDir(), sessions: map[mount.SessionID]bool{}}
	k, err := New(Options{Broker: m, MountsDir: t.TempDir(), Recorder: record.NewFakeRecorder(1)})
	if err != nil {
		t.Fatal(err)
	}
	return m, k
}

func TestAwaitReturnsWithTheOpenAndAsksNobodyMeanwhile(t *testing.T) {
	m, k := newMemory(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	awaited := make(chan error, 1)
	go func() { awaited <- k.Await(ctx, "of-a-pod") }()
	for _, id := range []mount.SessionID{"of-another", "of-a-pod"} {
		if _, err := k.Open(ctx, id, sidecar.Mount{}, &corev1.Pod{}); err != nil && id == "of-a-pod" {
			t.Error(err)
		}
	}
	if err := <-awaited; err != nil {
		t.Error(err)
	}
	// At the start, after the broker was there, and after each Open.
	if m.asked > 4 {
		t.Errorf("the broker was asked %d times", m.asked)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, k := newMemory(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := k.Await(ctx, "of-nobody"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if m.asked != 1 {
			t.Errorf("the broker was asked %d times in a minute", m.asked)
		}
	})
}

func TestAwaitFindsASessionOfAnEarlierProcess(t *testing.T) {
	m, k := newMemory(t)
	ctx, cancel := context.WithCancel(t.Context())
	awaited := make(chan error, 1)
	go func() { awaited <- k.Await(ctx, "of-a-pod") }()
	m.mu.Lock()
	m.sessions["of-a-pod"] = true
	m.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := <-awaited; err != nil {
		t.Error(err)
	}
	cancel()
	running.Wait()
}
