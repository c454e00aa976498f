package broker

import (
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// attachedBy has a client in service tell a session so, and returns what is told of it.
func attachedBy(t *testing.T, change func(*session)) (*session, []Event) {
	t.Helper()
	var events []Event
	log := logrus.New()
	log.SetOutput(io.Discard)
	b := &Broker{o: Options{Log: log, OnEvent: func(e Event) { events = append(events, e) }}}
	s := b.newSession(Request{ID: "s"}, "m")
	s.client = wire.Client{Phase: wire.InService, Starts: 2}
	s.state, s.served, s.counted, s.resumed = mount.Orphaned, 1, 1, time.Now()
	change(s)
	s.attached(s.client)
	return s, events
}

func TestAttachedKnowsNoPauseThatNobodyHasMeasured(t *testing.T) {
	_, events := attachedBy(t, func(s *session) {
		s.next, s.switching, s.agent = &Successor{Generation: 3}, true, &agent{generation: 3}
	})
	if len(events) != 1 || events[0].Reason != ClientUpgraded || events[0].Pause != 0 {
		t.Errorf("told: %+v", events)
	}
	_, events = attachedBy(t, func(s *session) { s.blame = upgradeFailed })
	if len(events) != 1 || events[0].Reason != ClientRestarted || events[0].Pause != 0 {
		t.Errorf("told: %+v", events)
	}
}

// A client that was confirmed while it was told to let go must not pass for the one that takes over.
func TestAttachedTellsTheSuccessorFromTheClientBefore(t *testing.T) {
	before := func(s *session) {
		s.next, s.switching, s.agent, s.down = &Successor{Generation: 3}, true, &agent{generation: 2}, s.resumed.Add(-time.Second)
	}
	s, events := attachedBy(t, before)
	if s.ready || len(events) != 0 {
		t.Errorf("ready %t, told: %+v", s.ready, events)
	}
	s, events = attachedBy(t, func(s *session) {
		before(s)
		s.blame = upgradeFailed
	})
	if !s.ready || len(events) != 1 || events[0].Reason != ClientRestarted || events[0].Pause != time.Second {
		t.Errorf("ready %t, told: %+v", s.ready, events)
	}
}
