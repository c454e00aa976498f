package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// Successor is the agent that shall take a session over. Whoever runs containers starts it beside the present one.
type Successor struct {
	// Generation is what the agent was started with. It is higher than that of any agent that the session has had.
	Generation int
	// Volume is what its client serves: the same file system, perhaps with other options or credentials. One without an ID stands for what the present client serves.
	Volume mount.Volume
	// Grace is how long the present client may take to write everything out; after that it is killed, and the next one writes it. Requests wait meanwhile.
	// Default 10 s.
	Grace time.Duration
	// Serve is how long the next client may take to answer once it has the session; after that the old agent gets it back. Default 20 s.
	Serve time.Duration
}

// overtime is how long an agent may take beyond the grace of its client before it is killed.
const overtime = 5 * time.Second

// upgradeFailed is the cause of a restart that a failed upgrade has brought.
const upgradeFailed = "upgrade failed"

// ErrUnserved: there is nothing to hand over, because no client has ever served the session. Its agent gets a changed volume by Open.
var ErrUnserved = errors.New("no client has served the session yet")

// Upgrade waits until the successor stands by with a client that is ready, has the present client end, and gives the session to the successor. It returns how long
// requests had to wait. ctx bounds the wait for the successor; what follows has bounds of its own. If the successor cannot serve, the agent before gets
// the session back, and the error says why. It may be called again after a restart of the broker, and returns 0 if the successor has the session already.
func (b *Broker) Upgrade(ctx context.Context, id mount.SessionID, next Successor) (time.Duration, error) {
	if err := b.ready(ctx); err != nil {
		return 0, err
	}
	s := b.find(id)
	if s == nil {
		return 0, fmt.Errorf("upgrade session %s: %w", id, mount.ErrNotFound)
	}
	setDefault(&next.Grace, 10*time.Second)
	setDefault(&next.Serve, 20*time.Second)
	pause, err := s.upgrade(ctx, next)
	if err != nil && !errors.Is(err, errEnded) {
		s.log.WithError(err).WithField("generation", next.Generation).Warn("session not upgraded")
		b.emit(s, Event{Reason: ClientUpgradeFailed, Message: err.Error()})
	}
	if err != nil {
		return 0, fmt.Errorf("upgrade session %s: %w", id, err)
	}
	return pause, nil
}

func (s *session) upgrade(ctx context.Context, next Successor) (time.Duration, error) {
	done, err := s.expect(next)
	if done || err != nil {
		return 0, err
	}
	defer s.update(func() { s.next = nil })
	r, err := s.awaitPrepared(ctx, next.Generation)
	switch {
	case s.b.isOver():
		return 0, errEnded
	case err != nil:
		s.sendAway(ctx, r)
		return 0, err
	case r == nil:
		return 0, nil
	}
	// From here on nobody may give up half way.
	ctx = context.WithoutCancel(ctx)
	return s.switchOver(ctx, r, next)
}

// expect lets the successor in. done: it has the session.
func (s *session) expect(next Successor) (done bool, err error) {
	s.update(func() {
		switch {
		case s.ending:
			err = mount.ErrClosed
		case s.generation >= next.Generation:
			done = true
		case s.next != nil:
			err = errors.New("another upgrade is under way")
		case !s.taken:
			err = ErrUnserved
		case next.Volume.ID != "":
			s.next = &next
		case s.volumeKnown:
			next.Volume = s.volume
			s.next = &next
		default:
			err = errors.New("nobody has told yet what the present client serves")
		}
	})
	return done, err
}

// awaitPrepared waits until the successor's client is ready. A client whose configuration is wrong is not waited for. After a restart of the broker it may come and
// have the session already; then nobody is returned.
func (s *session) awaitPrepared(ctx context.Context, generation int) (*standby, error) {
	var last error
	for {
		s.mu.Lock()
		r, ending, changed := s.standby, s.ending, s.changed
		done := s.generation >= generation
		settled := s.agent == nil || s.client.Phase != ""
		var c wire.Client
		if r != nil && r.agent.generation != generation {
			r = nil
		}
		if r != nil {
			c = r.client
		}
		s.mu.Unlock()
		switch {
		case ending:
			return r, mount.ErrClosed
		case done:
			return nil, nil
		case c.Phase == wire.Prepared && settled:
			return r, nil
		case c.Phase == wire.Waiting && failureOf(c) != nil:
			last = failureOf(c)
			if errors.Is(last, mount.ErrConfig) {
				return r, last
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if last != nil {
				return r, fmt.Errorf("the next client cannot start: %w", last)
			}
			return r, fmt.Errorf("the next client is not ready: %w", ctx.Err())
		}
	}
}

// switchOver ends the present client and promotes the successor, or gives the session back.
func (s *session) switchOver(ctx context.Context, r *standby, next Successor) (time.Duration, error) {
	var old int
	var volume mount.Volume
	s.update(func() {
		old, volume = s.generation, s.volume
		s.switching, s.ready = true, false
		if s.state != mount.Orphaned || s.down.IsZero() { // it is orphaned since nobody knows when, if this broker is new
			s.state, s.down = mount.Orphaned, time.Now()
		}
	})
	s.log.WithField("generation", next.Generation).Info("handing the session over")
	err := s.vacate(ctx, next.Grace)
	if err == nil {
		err = s.promote(ctx, r)
	}
	if err == nil {
		err = s.awaitServing(ctx, r.agent, next.Serve)
	}
	if err == nil {
		var pause time.Duration
		s.update(func() { s.switching, pause = false, s.paused })
		return pause, nil
	}
	if s.b.isOver() {
		// The next broker finds out who has it.
		return 0, errEnded
	}
	s.giveBack(ctx, r, old, volume, next.Serve)
	return 0, err
}

// vacate has the agent that serves let go of the session, and waits until none of its processes can touch it any more.
func (s *session) vacate(ctx context.Context, grace time.Duration) error {
	s.mu.Lock()
	held := s.files
	s.mu.Unlock()
	if held == nil {
		return mount.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, grace+overtime+release)
	defer cancel()
	free := make(chan error, 1)
	left := (<-chan error)(free)
	go func() { free <- released(ctx, held.watch) }()
	late := time.NewTimer(grace + overtime)
	defer late.Stop()
	for told, empty := (*agent)(nil), false; ; {
		s.mu.Lock()
		a, changed := s.agent, s.changed
		s.mu.Unlock()
		switch {
		case a == nil && empty:
			return nil
		case a != nil && empty:
			a.conn.Close() // nothing is left of it but the connection
		case a != nil && a != told:
			told = a
			if err := a.tell(ctx, wire.Message{Type: wire.Yield, Grace: grace}); err != nil {
				s.log.WithError(err).Warn("tell the agent to yield")
			}
		}
		select {
		case err := <-left:
			if err != nil {
				return err
			}
			empty, left = true, nil
		case <-changed:
		case <-late.C:
			s.evict(a)
		case <-ctx.Done():
			return errors.New("the agent does not let go of the session")
		}
	}
}

// evict kills an agent that does not do what it is told; its client dies with it.
func (s *session) evict(a *agent) {
	if a == nil {
		return
	}
	s.log.WithField("generation", a.generation).Error("the agent does not let go of the session and is killed")
	if a.process != nil {
		if err := kill(a.process); err != nil {
			s.log.WithError(err).Warn("kill the agent")
		}
	}
	a.conn.Close()
}

// awaitServing waits until the promoted agent's client has answered a real request.
func (s *session) awaitServing(ctx context.Context, a *agent, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		s.mu.Lock()
		ready, present, c, ending, changed := s.ready, s.agent, s.client, s.ending, s.changed
		s.mu.Unlock()
		switch {
		case ending:
			return mount.ErrClosed
		case present != a:
			return errors.New("the next sidecar has ended")
		case ready:
			return nil
		case c.Phase == wire.Waiting && failureOf(c) != nil:
			return fmt.Errorf("the next client cannot serve: %w", failureOf(c))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the next client does not answer within %s", limit)
		}
	}
}

// giveBack returns the session to the agent of a generation, which has let go of it and asks for it all the time.
func (s *session) giveBack(ctx context.Context, r *standby, generation int, volume mount.Volume, limit time.Duration) {
	if err := s.setGeneration(generation); err != nil {
		s.log.WithError(err).Error("record that the session goes back")
	}
	promoted := false
	s.update(func() {
		promoted = s.agent == r.agent
		s.volume, s.blame = volume, upgradeFailed
	})
	if promoted {
		if err := s.vacate(ctx, 0); err != nil {
			s.log.WithError(err).Error("take the session back")
		}
	}
	s.sendAway(ctx, r)
	s.update(func() { s.switching = false })
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.b.Wait(ctx, s.request.ID); err != nil {
		s.log.WithError(err).Error("the client before the upgrade does not serve again yet")
	}
}

// sendAway has a standby agent end its client and drop what it has.
func (s *session) sendAway(ctx context.Context, r *standby) {
	if r == nil {
		return
	}
	if err := r.agent.tell(ctx, wire.Message{Type: wire.Yield}); err != nil {
		s.log.WithError(err).Debug("the next agent has gone already")
	}
	s.dismiss(r.agent)
}
