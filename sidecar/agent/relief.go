package agent

import (
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// An agent that is asked to end while it serves may be wanted until another one has started: so it is with a Mount Pod that is deleted under its users. It says
// that it is leaving, and ends unless the broker asks it to stay. Then it serves until the session goes to the next agent, or the time is over.

// onAsked: this process is asked to end.
func (s *supervisor) onAsked() {
	s.log.info("ending")
	if s.o.Relief == 0 || s.ending || s.yielding || !s.owes() {
		s.beginEnd(s.o.Grace)
		return
	}
	s.leaving = true
	s.relief.Reset(s.o.Relief)
	s.tellLeaving()
}

// tellLeaving tells the broker, also one that has come since.
func (s *supervisor) tellLeaving() {
	if s.leaving && !s.ending {
		s.send(wire.Message{Type: wire.Leaving})
	}
}

// onStay: another agent is coming, or not any more if there is no time left.
func (s *supervisor) onStay(grace time.Duration) {
	if !s.leaving || s.ending {
		return
	}
	s.log.info("serving on until there is a successor", "limit", grace)
	s.relief.Reset(grace)
}
