package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// firstProbe is the pause after the first probe of a client that was not answered; it doubles up to the time that a probe may take.
const firstProbe = 50 * time.Millisecond

// agentEnded is the cause of what happens when an agent goes.
const agentEnded = "agent ended"

// follow listens to the session's agent until it goes.
func (s *session) follow(ctx context.Context, a *agent) {
	var probing sync.WaitGroup
	defer probing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	news := make(chan struct{}, 1)
	probing.Go(func() { s.confirm(ctx, news) })
	s.mu.Lock()
	a.followed, a.heard = true, time.Now()
	s.mu.Unlock()
	for {
		m, got, err := a.conn.Receive(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) && ctx.Err() == nil {
				s.log.WithError(err).Warn("the agent breaks the protocol")
			}
			return
		}
		handled := s.onBacking(ctx, a, m, got)
		a.conn.Discard(ctx, got)
		if handled {
			continue
		}
		switch m.Type {
		case wire.State:
			if !s.onStandbyState(a, *m.Client) && s.onState(*m.Client) {
				select {
				case news <- struct{}{}:
				default:
				}
			}
		case wire.Pong:
			s.onPong(ctx, a, *m.Client)
		case wire.Leaving:
			s.onLeaving(ctx, a)
		case wire.Closed:
			if !s.onStandbyState(a, *m.Client) {
				s.onClosed(m.Client)
			}
			return
		default:
			s.log.WithField("type", m.Type).Warn("the agent breaks the protocol")
			return
		}
	}
}

// onState takes over what the agent tells of its client. isNews: a client says that it serves, which nobody has confirmed.
func (s *session) onState(now wire.Client) (isNews bool) {
	var before wire.Client
	var switching bool
	s.update(func() {
		before, switching = s.client, s.switching
		s.client = now
		if f := failureOf(now); f != nil || now.Phase == wire.InService {
			s.failure = f
		}
		if now.Phase != wire.InService {
			s.interrupt()
			return
		}
		if isNews = !before.Same(now); isNews {
			s.resumed = time.Now()
		}
		s.ready = s.ready && before.Same(now)
	})
	if now.Phase == wire.Waiting && now.Ended != "" && before.Phase != wire.Waiting && !switching {
		s.onFailure(now)
	}
	return isNews
}

// interrupt notes that nobody serves. The caller holds mu.
func (s *session) interrupt() {
	s.ready = false
	if s.served == 0 || s.ending || s.state == mount.Orphaned {
		return
	}
	s.state, s.down = mount.Orphaned, time.Now()
}

func (s *session) onFailure(c wire.Client) {
	text := c.Text
	if text == "" {
		text = "the client has ended: " + c.Ended
	}
	if !s.reports.allows() {
		return
	}
	s.log.WithField("cause", c.Ended).WithField("error", text).Warn("client failed")
	s.b.emit(s, Event{Reason: ClientFailed, Cause: c.Ended, Message: text})
}

// confirm calls the session ready when a real request has been answered since its client says that it serves. There is one probe at a time, however often an agent
// has another client, and it is always about the last one.
func (s *session) confirm(ctx context.Context, news <-chan struct{}) {
	pause := firstProbe
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
			pause = firstProbe
		case <-again:
			pause = min(2*pause, s.b.o.ProbeTimeout)
		}
		again = nil
		if s.probes.wait(ctx) != nil {
			return
		}
		if !s.probed(ctx) {
			again = time.After(pause)
		}
	}
}

// probed asks the mount once. It is false if the client that has been asked is still there and owes an answer.
func (s *session) probed(ctx context.Context) bool {
	s.mu.Lock()
	c, ready := s.client, s.ready
	s.mu.Unlock()
	if ready || !s.isServedBy(c) {
		return true
	}
	err := s.b.probe(ctx, s.request.Target)
	if err == nil {
		s.attached(c)
		return true
	}
	if ctx.Err() != nil || !s.isServedBy(c) {
		return true
	}
	s.log.WithError(err).Warn("the mount does not answer yet")
	return false
}

func (s *session) isServedBy(c wire.Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Same(c) && !s.ending
}

// attached calls the session ready. A client that has been counted before serves on after a restart of the broker.
func (s *session) attached(c wire.Client) {
	e := Event{Reason: ClientRestarted, Cause: c.Ended, Pause: c.Pause}
	current := false
	s.update(func() {
		current = s.client.Same(c) && !s.ending
		if !current {
			return
		}
		successor := s.switching && s.agent != nil && s.agent.generation == s.next.Generation
		if s.switching && !successor && s.blame == "" {
			// The client before, which has been told to let go: nobody may take it for the next one.
			current = false
			return
		}
		switch {
		case successor:
			e = Event{Reason: ClientUpgraded, Pause: s.waited()}
		case s.counted == c.Starts:
			e = Event{Reason: SessionRestored, Message: "the volume's client has served on"}
		case s.served == 0:
			e = Event{Reason: ClientStarted, Message: "the volume is mounted and answers"}
		case s.blame != "":
			e.Cause, e.Pause = s.blame, s.waited()
		case e.Cause == "":
			e.Cause = agentEnded
		}
		if e.Reason == ClientRestarted && e.Pause == 0 {
			e.Pause = s.waited()
		}
		if s.counted != c.Starts {
			s.served++
			s.counted = c.Starts
		}
		s.ready, s.state, s.failure, s.down, s.blame, s.paused = true, mount.Attached, nil, time.Time{}, "", e.Pause
	})
	if !current {
		return
	}
	switch e.Reason {
	case ClientUpgraded:
		e.Message = fmt.Sprintf("another client has taken the volume over; requests waited for %s", e.Pause.Round(time.Millisecond))
	case ClientRestarted:
		e.Message = fmt.Sprintf("the volume's client was replaced (%s); requests waited for %s", e.Cause, e.Pause.Round(time.Millisecond))
	}
	s.log.WithFields(logrus.Fields{"reason": e.Reason, "cause": e.Cause, "pause": e.Pause}).Info("client serves")
	s.b.emit(s, e)
}

// waited is how long requests had to wait for the client that serves, 0 if nobody knows since when. The caller holds mu.
func (s *session) waited() time.Duration {
	if s.down.IsZero() || s.resumed.Before(s.down) {
		return 0
	}
	return s.resumed.Sub(s.down)
}

// onClosed: the agent has ended in order. Its container may start again, so the session stays unless it is being closed.
func (s *session) onClosed(c *wire.Client) {
	s.update(func() {
		s.client = wire.Client{Phase: wire.Terminated}
		if c != nil {
			s.client = *c
		}
		s.interrupt()
	})
}

// unseat makes room for the next agent.
func (s *session) unseat(a *agent) {
	var orphaned bool
	s.update(func() {
		if s.agent != a {
			return
		}
		s.agent = nil
		orphaned = s.client.Phase != "" && s.client.Phase != wire.Terminated && !s.ending && !s.switching
		if !orphaned {
			return
		}
		s.failure = errors.New("the sidecar has ended")
		s.interrupt()
	})
	if orphaned {
		s.log.Warn("lost the agent")
		s.b.emit(s, Event{Reason: ClientFailed, Cause: agentEnded, Message: "the volume's sidecar has ended; requests wait for the next one"})
	}
}
