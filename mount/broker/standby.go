package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// errNotTurn: the agent may not have the session now; it was its predecessor's or will be its own.
var errNotTurn = errors.New("not this agent's turn")

// standby is an agent that keeps a client ready and has the session's files, as a third holder, but does not serve.
type standby struct {
	agent  *agent
	volume mount.Volume
	client wire.Client
	// watch is the lease of its own processes.
	watch *os.File
}

// isStandby tells whether an agent introduces itself as the successor of the one that has the session.
func (s *session) isStandby(m wire.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.Type == wire.Reserve || m.Type == wire.Hello && m.Generation > s.generation
}

// receiveStandby serves a standby agent until it goes, also after its promotion.
func (s *session) receiveStandby(ctx context.Context, a *agent, m wire.Message, got []*os.File) {
	var cause wire.Cause
	var err error
	if m.Type == wire.Hello {
		err = s.provide(ctx, a)
	} else {
		cause, err = s.park(ctx, a, m, got)
	}
	if err != nil {
		s.refuse(ctx, a.conn, cause, err)
		return
	}
	defer s.unseat(a)
	defer s.dismiss(a)
	s.follow(ctx, a)
}

// provide gives an awaited successor everything but the right to serve.
func (s *session) provide(ctx context.Context, a *agent) error {
	s.mu.Lock()
	next, held := s.next, s.files
	s.mu.Unlock()
	switch {
	case next == nil || next.Generation != a.generation:
		return fmt.Errorf("nobody has asked for an agent of generation %d: %w", a.generation, errNotTurn)
	case held == nil || held.watch == nil:
		return fmt.Errorf("the session's files are not here yet: %w", errNotTurn)
	}
	hold, watch, err := newLease()
	if err != nil {
		return err
	}
	defer hold.Close()
	if err := s.seatStandby(&standby{agent: a, volume: next.Volume, watch: watch}); err != nil {
		watch.Close()
		return err
	}
	v := next.Volume
	err = a.tell(ctx, wire.Message{
		Type: wire.Standby, Session: s.request.ID, Mount: s.mount, Volume: &v, Init: s.init, Answer: s.answer, Resumed: true,
	}, held.device, held.memory, hold, watch, held.watch)
	if err != nil {
		s.dismiss(a)
	}
	return err
}

// park takes back a standby agent after a restart of the broker. What it holds may be all that is left of the session.
func (s *session) park(ctx context.Context, a *agent, m wire.Message, got []*os.File) (wire.Cause, error) {
	watch := got[3]
	if cause, err := s.takeFiles(ctx, a, m, got[:3]); err != nil {
		a.conn.Discard(ctx, got[3:])
		return cause, err
	}
	if !isLease(watch) {
		a.conn.Discard(ctx, got[3:])
		return "", fmt.Errorf("deposited file is not the agent's lease: %w", mount.ErrRefused)
	}
	s.mu.Lock()
	s.taken = true
	s.served = max(s.served, 1) // nobody stands by for a session that has not been served
	current := s.generation
	s.mu.Unlock()
	r := &standby{agent: a, volume: *m.Volume, client: *m.Client, watch: watch}
	if a.generation < current {
		watch.Close()
		return wire.CauseStale, fmt.Errorf("the session has an agent of generation %d: %w", current, errNotTurn)
	}
	if err := s.seatStandby(r); err != nil {
		watch.Close()
		return "", err
	}
	if a.generation > current {
		return "", a.tell(ctx, wire.Message{Type: wire.Accepted})
	}
	// The broker before had decided for it and died before it could say so.
	if err := s.vacate(ctx, 0); err != nil {
		s.dismiss(a)
		return "", err
	}
	return "", s.promote(ctx, r)
}

// seatStandby makes room for r: of two successors the later one counts.
func (s *session) seatStandby(r *standby) error {
	var before *standby
	var err error
	s.update(func() {
		before = s.standby
		if before != nil && before.agent.generation >= r.agent.generation {
			err = errors.New("another agent stands by already")
			return
		}
		s.standby = r
	})
	if err == nil && before != nil {
		before.watch.Close()
		before.agent.conn.Close()
	}
	return err
}

// dismiss forgets a standby agent. One that has been promoted is none any more.
func (s *session) dismiss(a *agent) {
	var gone *standby
	s.update(func() {
		if s.standby != nil && s.standby.agent == a {
			gone, s.standby = s.standby, nil
		}
	})
	if gone != nil {
		gone.watch.Close()
	}
}

// onStandbyState notes what a standby agent tells of its client; false if a is none.
func (s *session) onStandbyState(a *agent, now wire.Client) (known bool) {
	s.update(func() {
		if known = s.standby != nil && s.standby.agent == a; known {
			s.standby.client = now
		}
	})
	return known
}

// promote gives the session to a standby agent. Nobody of the agent before is left.
func (s *session) promote(ctx context.Context, r *standby) error {
	// The journal comes first: should this broker die now, the next one must not give the session to the agent before.
	if err := s.setGeneration(r.agent.generation); err != nil {
		return err
	}
	promoted := false
	s.update(func() {
		if promoted = s.standby == r && s.files != nil && !s.ending; !promoted {
			return
		}
		s.standby, s.agent = nil, r.agent
		r.agent.heard = time.Now() // nobody has pinged it
		if s.files.watch != nil {
			s.files.watch.Close()
		}
		s.files.watch = r.watch
		s.volume, s.volumeKnown = r.volume, true
		s.client, s.counted, s.known, s.taken = wire.Client{}, 0, true, true
	})
	if !promoted {
		return errors.New("the next agent has gone")
	}
	return r.agent.tell(ctx, wire.Message{Type: wire.Promote})
}

// setGeneration decides which agent may have the session, for the next broker too.
func (s *session) setGeneration(generation int) error {
	s.mu.Lock()
	changed := s.generation != generation && !s.ending
	s.generation = generation
	r := s.record(mount.Mounted)
	s.mu.Unlock()
	if !changed {
		return nil
	}
	return s.b.journal.write(r)
}
