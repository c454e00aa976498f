package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/wire"
)

// deaf is how many pings an agent may leave unanswered before it is killed.
const deaf = 3

// watchOver looks for what does not end by itself: an agent or a client that no longer runs, and a client that runs and does not answer.
//
// It also gives a session up for which no client comes back.
//
// Pings find a process that is stopped or starved, and cost next to nothing. Only when requests wait at two checks in a row is the mount itself probed. A client
// that answers pings and not the mount may be waiting for its metadata engine, so it is given the time of Options.Stuck.
func (s *session) watchOver(ctx context.Context) {
	var stuckSince, orphanedSince time.Time
	waiting := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(s.b.o.Liveness)):
		}
		a, serving := s.ping(ctx)
		n, err := s.b.control.Waiting(s.device)
		if err != nil || n == 0 || !s.isUnserved() {
			orphanedSince = time.Time{}
		} else if orphanedSince.IsZero() {
			orphanedSince = time.Now()
		}
		if limit := s.b.o.Orphan; limit > 0 && !orphanedSince.IsZero() && time.Since(orphanedSince) >= limit && ctx.Err() == nil {
			s.lose(fmt.Sprintf("requests have waited for %s and no client has come", limit))
			return
		}
		if err != nil || n == 0 || a == nil || !serving {
			stuckSince, waiting = time.Time{}, 0
			continue
		}
		if waiting++; waiting < 2 {
			continue
		}
		if s.b.probe(ctx, s.request.Target) == nil {
			stuckSince = time.Time{}
			continue
		}
		if stuckSince.IsZero() {
			stuckSince = time.Now()
		}
		if ctx.Err() == nil && time.Since(stuckSince) >= s.b.o.Stuck {
			stuckSince, waiting = time.Time{}, 0
			s.replace(ctx, a, "requests are not answered")
		}
	}
}

// isUnserved: there is no client that is known to answer. An upgrade has deadlines of its own.
func (s *session) isUnserved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ready && !s.ending && !s.switching
}

// jitter spreads the checks of many sessions.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// ping asks the agent for a sign of life. An agent that has given none for long is killed: its container starts another one. One that has not been answered itself yet is
// left alone, and so is everybody while the session changes hands, which has deadlines of its own.
func (s *session) ping(ctx context.Context) (a *agent, serving bool) {
	s.mu.Lock()
	a = s.agent
	serving = s.client.Phase == wire.InService && !s.ending // also when it has not answered a single request yet
	var silent time.Duration
	if a != nil && s.switching {
		a.heard = time.Now()
	}
	awaited := a != nil && a.followed && !s.switching
	if awaited {
		silent = time.Since(a.heard)
	}
	s.mu.Unlock()
	if !awaited {
		return nil, false
	}
	if silent > deaf*s.b.o.Liveness {
		s.killAgent(a)
		return nil, false
	}
	if err := a.tell(ctx, wire.Message{Type: wire.Ping}); err != nil {
		s.log.WithError(err).Warn("ping the agent")
	}
	return a, serving
}

func (s *session) killAgent(a *agent) {
	s.log.Error("the agent does not answer and is killed")
	if a.process != nil {
		if err := kill(a.process); err != nil {
			s.log.WithError(err).Warn("kill the agent")
		}
	}
	a.conn.Close()
	s.b.emit(s, Event{Reason: ClientHung, Cause: "agent hung", Message: "the volume's sidecar does not answer and is killed"})
}

// kill kills the process of a pidfd. Whoever talks to the agent closes that file at any time, so its number is used only while it is held.
func kill(process *os.File) error {
	raw, err := process.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	return errors.Join(err, sent)
}

// onPong: the agent lives. If its client does not, the client is replaced.
func (s *session) onPong(ctx context.Context, a *agent, c wire.Client) {
	s.mu.Lock()
	a.heard = time.Now()
	ending := s.ending || s.switching || a != s.agent
	resent, replayed := a.tally(c)
	s.mu.Unlock()
	s.b.resent.Add(resent)
	s.b.replayed.Add(replayed)
	if c.Phase == wire.InService && !c.Alive && !ending {
		s.replace(ctx, a, "client does not run")
	}
}

// tally returns what an agent's clients have done again since it was last heard of. mu is held. What they did before this broker knew the agent is not counted twice.
func (a *agent) tally(c wire.Client) (resent, replayed uint64) {
	if a.counted {
		resent, replayed = c.Resent-min(a.resent, c.Resent), c.Replayed-min(a.replayed, c.Replayed)
	} else if !a.returned {
		resent, replayed = c.Resent, c.Replayed
	}
	a.counted, a.resent, a.replayed = true, c.Resent, c.Replayed
	return resent, replayed
}

func (s *session) replace(ctx context.Context, a *agent, why string) {
	if s.reports.allows() {
		s.log.WithField("reason", why).Warn("replacing the client")
		s.b.emit(s, Event{Reason: ClientHung, Cause: "hung", Message: "the volume's client is being replaced: " + why})
	}
	if err := a.tell(ctx, wire.Message{Type: wire.Replace, Text: why}); err != nil {
		s.log.WithError(err).Warn("tell the agent")
	}
}
