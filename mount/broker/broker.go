package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
)

// Options of a broker.
type Options struct {
	// RunDir holds the sessions' sockets, one directory per session. It must be on a file system that keeps sockets and may vanish at a reboot. Default
	// /run/sidemount.
	RunDir string
	// StateDir holds the journal of sessions. It must survive a restart of the broker. Default /var/lib/sidemount/sessions.
	StateDir string
	// AgentPath is the agent's program on this host; the broker runs it to probe a mount. Required.
	AgentPath string
	// OnEvent is called on every change of a session, one call at a time, and must not block. nil: nobody listens.
	OnEvent func(Event)
	// Reconnect is how long a session may wait for its agent after a restart of the broker before it counts as lost. Default 30 s.
	Reconnect time.Duration
	// Liveness is the pause between two checks whether a client hangs. A client that does not run at all is replaced after two to three of them. Default 10 s.
	Liveness time.Duration
	// Stuck is how long a client may leave requests unanswered, and not answer a probe either, before it is replaced although it runs. It should be
	// longer than an outage of the volume's back end that the client sits out by itself. Default 2 min.
	Stuck time.Duration
	// Orphan is how long requests may wait for a client when none comes back; then the session is lost, and they fail. It counts anew after a restart of the broker and while
	// nothing waits. It should be longer than any outage of a back end, a registry or a runtime that open files are to outlive. Default 0: for ever.
	Orphan time.Duration
	// ProbeTimeout is how long a probe of a mount may take. Default 10 s.
	ProbeTimeout time.Duration
	// NoResend treats the kernel as one that cannot give a new client the requests of a dead one (before Linux 6.9): they are answered with EINTR. Default false: the kernel says
	// what it can.
	NoResend bool
	// Cover leaves the dead mount of a lost session where it is, and the next session is mounted on top of it: that reaches containers which have
	// bound the dead one and receive mounts from it. Default false: a dead mount is unmounted, and running containers keep it.
	Cover bool
	// Log receives what happens. Default logrus.StandardLogger().
	Log logrus.FieldLogger
}

func (o *Options) setDefaults() {
	setDefault(&o.RunDir, "/run/sidemount")
	setDefault(&o.StateDir, "/var/lib/sidemount/sessions")
	setDefault(&o.Reconnect, 30*time.Second)
	setDefault(&o.Liveness, 10*time.Second)
	setDefault(&o.Stuck, 2*time.Minute)
	setDefault(&o.ProbeTimeout, 10*time.Second)
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Broker holds the sessions of a node.
type Broker struct {
	o       Options
	journal *journal
	control *fuse.Control
	// adopt hands a new session to Run, which owns its goroutines.
	adopt chan *session
	// up is closed when the recorded sessions are restored, down when Run has ended.
	up, down chan struct{}

	mu       sync.Mutex // guards what follows
	sessions map[mount.SessionID]*session
	// over tells whether Run is to end; nil before Run.
	over func() error

	events sync.Mutex // held while OnEvent runs

	resent, replayed atomic.Uint64
}

// New checks the options. The journal is read by Run.
func New(o Options) (*Broker, error) {
	if o.AgentPath == "" {
		return nil, errors.New("the agent's path is not given")
	}
	o.setDefaults()
	return &Broker{
		o:        o,
		journal:  &journal{dir: o.StateDir, log: o.Log},
		adopt:    make(chan *session),
		up:       make(chan struct{}),
		down:     make(chan struct{}),
		sessions: map[mount.SessionID]*session{},
	}, nil
}

// Run restores the recorded sessions and serves agents until ctx ends. It fails if it cannot read which ones there are. Sessions outlive it: their agents keep them, and the next broker finds them. It is
// called once.
func (b *Broker) Run(ctx context.Context) error {
	defer close(b.down)
	b.mu.Lock()
	b.over = ctx.Err
	b.mu.Unlock()
	if err := b.prepare(); err != nil {
		return err
	}
	defer b.control.Close()
	restored, err := b.restore()
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	for _, s := range restored {
		running.Go(func() { s.run(ctx) })
	}
	close(b.up)
	for {
		select {
		case s := <-b.adopt:
			running.Go(func() { s.run(ctx) })
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *Broker) prepare() error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{b.o.RunDir, 0o755}, {filepath.Join(b.o.RunDir, "sessions"), 0o755}, {b.o.StateDir, 0o700}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("prepare the broker's directories: %w", err)
		}
	}
	var err error
	b.control, err = fuse.OpenControl()
	return err
}

var errEnded = errors.New("the broker has ended")

// ready waits until Run has restored what was recorded.
func (b *Broker) ready(ctx context.Context) error {
	select {
	case <-b.down:
		return errEnded
	default:
	}
	select {
	case <-b.up:
		return nil
	case <-b.down:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("wait for the broker: %w", ctx.Err())
	}
}

// isOver: agents are being left, so what their connections say means nothing.
func (b *Broker) isOver() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over != nil && b.over() != nil
}

// SocketDir is the directory to bind at /run/sidemount/session in the session's sidecar.
func (b *Broker) SocketDir(id mount.SessionID) string {
	return filepath.Join(b.o.RunDir, "sessions", string(id))
}

func (b *Broker) find(id mount.SessionID) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[id]
}

func (b *Broker) forget(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions[s.request.ID] == s {
		delete(b.sessions, s.request.ID)
	}
}

// Status returns the session as it is now, or mount.ErrNotFound. Recorded sessions are found once Run has restored them, which Open, Wait and Close await.
func (b *Broker) Status(id mount.SessionID) (Session, error) {
	s := b.find(id)
	if s == nil {
		return Session{}, fmt.Errorf("session %s: %w", id, mount.ErrNotFound)
	}
	return s.snapshot(), nil
}

// Sessions returns all sessions as they are now, ordered by ID.
func (b *Broker) Sessions() []Session {
	b.mu.Lock()
	all := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		all = append(all, s)
	}
	b.mu.Unlock()
	snapshots := make([]Session, len(all))
	for i, s := range all {
		snapshots[i] = s.snapshot()
	}
	slices.SortFunc(snapshots, func(a, b Session) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return snapshots
}

// Redone counts what clients did again for those before them: requests that the kernel sent once more, and bytes of writes that had been acknowledged and not
// stored. Clients tell with their pings, so it is late by up to two of Options.Liveness.
func (b *Broker) Redone() (requests, bytes uint64) { return b.resent.Load(), b.replayed.Load() }

// Wait returns nil when the session is ready. When ctx ends before, the error wraps the client's own failure, if there is one. A session that ends meanwhile is
// mount.ErrClosed.
func (b *Broker) Wait(ctx context.Context, id mount.SessionID) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	s := b.find(id)
	if s == nil {
		return fmt.Errorf("session %s: %w", id, mount.ErrNotFound)
	}
	for {
		now, changed := s.watch()
		switch {
		case now.Ready:
			return nil
		case now.State == mount.Closed:
			return fmt.Errorf("session %s: %w", id, mount.ErrClosed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if now.Failure != nil {
				return fmt.Errorf("session %s is not ready: %w", id, now.Failure)
			}
			return fmt.Errorf("session %s is not ready (%s): %w", id, now.State, ctx.Err())
		}
	}
}
