package mountpod_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
)

var errKilled = errors.New("killed here")

// killer ends a keeper before its nth step.
type killer struct {
	mu      sync.Mutex
	left    int
	reached []string
	dead    chan struct{}
}

func newKiller(n int) *killer { return &killer{left: n, dead: make(chan struct{})} }

func (k *killer) step(what string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left == 0 {
		select {
		case <-k.dead:
		default:
			k.reached = append(k.reached, "† "+what)
			close(k.dead)
		}
		return errKilled
	}
	k.left--
	k.reached = append(k.reached, what)
	return nil
}

// kill runs do on a keeper that dies at its nth step, and replaces the process. It returns false when do has no such step.
func kill(t *testing.T, n *mountpodtest.Node, step int, do func(ctx context.Context)) bool {
	t.Helper()
	k := newKiller(step)
	n.DieAt(k.step)
	ctx, cancel := context.WithCancel(within(t, soon))
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(ctx)
	}()
	var died bool
	select {
	case <-k.dead:
		died = true
		cancel()
		<-done
	case <-done:
		select {
		case <-k.dead:
			died = true
		default:
		}
	}
	n.Restart()
	k.mu.Lock()
	defer k.mu.Unlock()
	t.Logf("steps: %q", k.reached)
	return died
}

func TestPublishIsResumedWhereverItsProcessDied(t *testing.T) {
	died := true
	for step := 0; died; step++ {
		t.Run(fmt.Sprint("step ", step), func(t *testing.T) {
			n := mountpodtest.Start(t)
			m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
			put(t, filepath.Join(n.Data, "hello"), "world")
			died = kill(t, n, step, func(ctx context.Context) {
				if _, err := n.Acquire(ctx, request(n, m, "one")); err != nil && !errors.Is(err, errKilled) {
					t.Errorf("acquire: %v", err)
				}
			})
			s := acquire(t, n, m, "one")
			if got := read(t, filepath.Join(s.Path, "hello")); got != "world" {
				t.Errorf("read %q", got)
			}
			eventually(t, "one pod is left", func() bool { return len(n.Pods.All()) == 1 })
			release(t, n, "one")
			eventually(t, "session and pod are gone", gone(n, s))
			eventually(t, "no record is left", func() bool { return len(records(t, n)) == 0 })
		})
	}
}

func TestPublishThatIsNotRepeatedIsTakenBack(t *testing.T) {
	died := true
	for step := 0; died; step++ {
		t.Run(fmt.Sprint("step ", step), func(t *testing.T) {
			n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Linger = 200 * time.Millisecond })
			m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
			died = kill(t, n, step, func(ctx context.Context) {
				if _, err := n.Acquire(ctx, request(n, m, "one")); err != nil && !errors.Is(err, errKilled) {
					t.Errorf("acquire: %v", err)
				}
			})
			eventually(t, "nothing is left", func() bool {
				return len(n.Pods.All()) == 0 && len(n.Broker.Sessions()) == 0 && len(records(t, n)) == 0
			})
		})
	}
}

func TestUnpublishIsResumedWhereverItsProcessDied(t *testing.T) {
	died := true
	for step := 0; died; step++ {
		t.Run(fmt.Sprint("step ", step), func(t *testing.T) {
			n := mountpodtest.Start(t)
			m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
			s := acquire(t, n, m, "one")
			died = kill(t, n, step, func(ctx context.Context) {
				if err := n.Release(ctx, filepath.Join(n.Dir, "kubelet", "one")); err != nil && !errors.Is(err, errKilled) {
					t.Errorf("release: %v", err)
				}
				// The end of the share is the worker's; it has come when its record is gone.
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for len(records(t, n)) > 0 && ctx.Err() == nil {
					select {
					case <-tick.C:
					case <-ctx.Done():
					}
				}
			})
			release(t, n, "one")
			eventually(t, "session and pod are gone", gone(n, s))
			eventually(t, "no record is left", func() bool { return len(records(t, n)) == 0 })
		})
	}
}

// records are the files of shares and references.
func records(t *testing.T, n *mountpodtest.Node) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.Dir, "state", "mountpod", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}
