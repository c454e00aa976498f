package broker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// Session is a snapshot of a session.
type Session struct {
	ID     mount.SessionID
	Volume mount.VolumeID
	// VolumeName is what the pod calls the volume.
	VolumeName string
	Target     string
	State      mount.State
	// Ready: a client serves and a real request has been answered since it does.
	Ready bool
	// Restarts counts the clients that came to serve after the first.
	Restarts int
	// Failure is why there is no client at the moment, nil if there is or if none has failed yet. It wraps mount.ErrConfig or mount.ErrUnavailable where
	// the client said so.
	Failure error
	// Generation is that of the agent that has the session, or had it last.
	Generation int
}

// session is a mount with everything that keeps it alive.
type session struct {
	b        *Broker
	log      logrus.FieldLogger
	mount    string // tells this mount from any other of the same name
	device   uint32
	listener *wire.Listener
	// opened is closed when Open has succeeded or failed; a restored session is open.
	opened chan struct{}
	// gone is closed when nothing is left of the session.
	gone chan struct{}

	mu           sync.Mutex // guards what follows; nothing is called with it held
	request      Request    // of its volume, only what names it
	volume       mount.Volume
	volumeKnown  bool // false after a restart of the broker, until somebody tells: the journal holds no secret
	init, answer []byte
	files        *files // nil until they are made, or deposited after a restart of the broker
	agent        *agent // nil while none is connected
	state        mount.State
	client       wire.Client
	taken        bool      // an agent has had the connection, so requests may have been taken
	served       int       // clients that came to serve
	counted      int       // the number, by its agent's count, of the last client among them
	down         time.Time // when requests began to wait
	ready        bool
	failure      error
	changed      chan struct{} // closed at the next change
	returned     chan struct{} // closed when a restored session has got its files back
	ending       bool
	generation   int           // of the agent that may have the session
	next         *Successor    // what an upgrade under way waits for
	standby      *standby      // nil while no agent stands by
	switching    bool          // the session is on its way from one agent to the next
	blame        string        // what ended the last client, if its agent cannot know
	resumed      time.Time     // when the client that serves said so
	paused       time.Duration // how long requests waited for it
	retained     time.Time     // until when an agent that has been asked to end shall serve on
	known        bool          // served and counted are what the agent says, or were counted here

	backings backings
	// What an agent says is always heard; these bound what it makes this process do about it. met: connections to the session's socket, of which an agent that has to try
	// again makes five in a second. probes: of the mount, one for each client that comes to serve. reports: of clients that fail or hang, as log and event.
	met, probes, reports budget
}

// files are the session's: the FUSE connection, its memory, and the lease of the present agent.
type files struct{ device, memory, watch *os.File }

func (f *files) close() {
	for _, file := range []*os.File{f.device, f.memory, f.watch} {
		if file != nil {
			file.Close()
		}
	}
}

func (b *Broker) newSession(r Request, mountID string) *session {
	return &session{
		b:        b,
		log:      b.o.Log.WithFields(logrus.Fields{"session": r.ID, "volume": r.Volume.ID}),
		request:  r,
		volume:   r.Volume,
		mount:    mountID,
		state:    mount.Requested,
		opened:   make(chan struct{}),
		gone:     make(chan struct{}),
		changed:  make(chan struct{}),
		returned: make(chan struct{}),
		backings: newBackings(),
		met:      budget{burst: 40, every: 50 * time.Millisecond},
		probes:   budget{burst: 100, every: 100 * time.Millisecond},
		reports:  budget{burst: 100, every: 100 * time.Millisecond},

		generation: r.Generation,
	}
}

// run owns the session's goroutines until ctx or the session ends.
func (s *session) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { s.accept(ctx, &running) })
	running.Go(func() { s.watchOver(ctx) })
	running.Go(func() { s.awaitAgent(ctx) })
	select {
	case <-ctx.Done():
	case <-s.gone:
	}
	cancel()
	s.listener.Close()
	running.Wait()
	s.mu.Lock()
	held := s.files
	s.files = nil
	s.mu.Unlock()
	if held != nil {
		held.close()
	}
}

// update changes the session and wakes everybody who waits for a change.
func (s *session) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *session) snapshot() Session {
	now, _ := s.watch()
	return now
}

// watch returns the session as it is and a channel that is closed at the next change.
func (s *session) watch() (Session, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Session{
		ID:         s.request.ID,
		Volume:     s.request.Volume.ID,
		VolumeName: s.request.Volume.Name,
		Target:     s.request.Target,
		State:      s.state,
		Ready:      s.ready,
		Restarts:   max(0, s.served-1),
		Failure:    s.failure,
		Generation: s.generation,
	}, s.changed
}

func (s *session) socket() string {
	return filepath.Join(s.b.SocketDir(s.request.ID), "agent.sock")
}

// record is the session as the journal keeps it.
func (s *session) record(state mount.State) record {
	return record{
		ID: s.request.ID, Mount: s.mount, Target: s.request.Target, UID: s.request.UID, GID: s.request.GID,
		Volume: s.request.Volume.ID, VolumeName: s.request.Volume.Name, Client: s.request.Volume.Client, ReadOnly: s.request.Volume.ReadOnly,
		State: state, Device: s.device, Generation: s.generation,
	}
}

// failureOf makes an error of what an agent tells of its client, nil if it tells of none.
func failureOf(c wire.Client) error {
	if c.Phase == wire.InService || c.Text == "" && c.Ended == "" {
		return nil
	}
	text := c.Text
	if text == "" {
		text = "the client has ended: " + c.Ended
	}
	switch c.Cause {
	case wire.CauseConfig:
		return &clientError{text, mount.ErrConfig}
	case wire.CauseUnavailable:
		return &clientError{text, mount.ErrUnavailable}
	}
	return errors.New(text)
}

// clientError carries a client's own words; its kind is not printed, because the words mostly say it already.
type clientError struct {
	text string
	kind error
}

func (e *clientError) Error() string { return e.text }
func (e *clientError) Unwrap() error { return e.kind }
