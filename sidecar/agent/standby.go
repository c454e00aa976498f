package agent

import (
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// A session changes its agent without a restart of anything else: the next agent stands by with a client that is ready, the present one has its client flush and end
// and lets go of everything, and then the next one is promoted. The broker decides; see package broker.

// nudgePause is how often a client that stands by is pinged. It gives up an agent that says nothing for longer (client.patience).
const nudgePause = 10 * time.Second

// onPrepared: the client of a standby agent is ready.
func (s *supervisor) onPrepared() {
	s.late.Stop()
	s.prepared, s.answered = true, true
	s.view.Phase = wire.Prepared
	s.view.Cause, s.view.Text = "", ""
	s.nudge.Reset(nudgePause)
	s.log.info("the client is ready and stands by", "pid", s.client.pid, "after", time.Since(s.client.started))
	s.report()
}

// onNudge keeps a client that stands by from giving up, and finds out whether it still runs.
func (s *supervisor) onNudge() {
	if !s.prepared {
		return
	}
	if !s.answered {
		s.kill("hung while standing by")
		return
	}
	s.answered = false
	s.nudge.Reset(nudgePause)
	s.toClient(wire.Message{Type: wire.Ping})
}

// onPromote: the session is this agent's from now on; no process of the one before is left.
func (s *supervisor) onPromote() {
	s.held.promote()
	s.log.info("promoted", "session", s.held.id, "prepared", s.prepared)
	s.nudge.Stop()
	switch {
	case s.prepared:
		s.prepared, s.answered = false, true
		s.view.Phase = wire.Starting
		s.late.Reset(s.o.StartTimeout)
		s.attach()
	case s.client == nil && !s.ending:
		s.next.Reset(0)
	}
}

// onYield ends the client in order and gives the session away. What it cannot write out in time stays in the session's memory, for the next client.
func (s *supervisor) onYield(grace time.Duration) {
	s.log.info("the session goes to another agent", "session", s.held.id)
	s.yielding = true
	s.next.Stop()
	switch {
	case s.client == nil:
		s.letGo()
	case s.view.Phase == wire.InService && grace > 0:
		s.end.Reset(grace)
		if !s.client.told {
			s.askToEnd()
		}
	default:
		s.kill("not needed")
	}
}

// letGo drops the session. The broker sees the connection end, and the lease with it; what comes next is a hello.
func (s *supervisor) letGo() {
	s.yielding = false
	if s.held != nil {
		s.log.info("let go of the session", "session", s.held.id)
		s.held.close()
		s.held = nil
	}
	s.backoff.reset()
	s.killed, s.view.Flushed, s.owed = "", false, nil
	s.view.Phase = wire.Waiting
	if s.leaving {
		s.ending = true
	}
	if !s.ending {
		s.end.Stop()
	}
	if s.conn != nil {
		s.conn.Close()
	}
}
