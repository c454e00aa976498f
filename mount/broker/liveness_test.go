package broker

import (
	"context"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// heldBy is a session with an agent at the other end of a connection.
func heldBy(t *testing.T, a *agent) (*session, *wire.Conn, func() []Event) {
	t.Helper()
	s := restored(t, 0)
	var events []Event
	s.b.o.OnEvent = func(e Event) { events = append(events, e) }
	conn, file, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	other, err := wire.NewConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); other.Close() })
	a.conn = conn
	s.agent = a
	return s, other, func() []Event { return events }
}

func TestAgentThatHangsBeforeItTellsOfAClientIsKilled(t *testing.T) {
	a := &agent{}
	s, other, events := heldBy(t, a)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.follow(t.Context(), a)
	}()
	for followed := false; !followed; {
		s.mu.Lock()
		followed = a.followed
		s.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s.ping(ctx)
	if m, _, err := other.Receive(ctx); err != nil || m.Type != wire.Ping {
		t.Fatalf("got %q, %v, want a ping", m.Type, err)
	}
	s.mu.Lock()
	a.heard = time.Now().Add(-deaf*s.b.o.Liveness - time.Second)
	s.mu.Unlock()
	s.ping(ctx)
	<-ended
	if e := events(); len(e) != 1 || e[0].Reason != ClientHung {
		t.Errorf("told: %+v", e)
	}
}

func TestAgentIsNotPingedBeforeItIsAnswered(t *testing.T) {
	s, other, events := heldBy(t, &agent{heard: time.Now().Add(-time.Hour)})
	s.ping(t.Context())
	s.agent.conn.Close()
	if m, _, err := other.Receive(t.Context()); err == nil {
		t.Errorf("got %s", m.Type)
	}
	if e := events(); len(e) != 0 {
		t.Errorf("told: %+v", e)
	}
}

// Nobody is pinged while a session changes hands, so nobody can have been silent.
func TestAgentIsNotKilledForASilenceOfTheBroker(t *testing.T) {
	s, _, events := heldBy(t, &agent{followed: true, heard: time.Now().Add(-time.Hour)})
	s.switching = true
	s.ping(t.Context())
	s.switching = false
	s.ping(t.Context())
	if e := events(); len(e) != 0 {
		t.Errorf("told: %+v", e)
	}
}

// One that says that it serves and never does is as stuck as one that has served before.
func TestClientThatHasNotBeenConfirmedIsWatched(t *testing.T) {
	s, _, _ := heldBy(t, &agent{followed: true, heard: time.Now()})
	for phase, want := range map[wire.Phase]bool{wire.Starting: false, wire.InService: true, wire.Waiting: false} {
		s.client = wire.Client{Phase: phase}
		if _, serving := s.ping(t.Context()); serving != want {
			t.Errorf("%s: watched %t", phase, serving)
		}
	}
}
