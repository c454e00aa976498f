package broker

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// An agent that always has another client must not have this process start a probe for each, nor fill logs and events.
func TestAgentCannotMakeTheBrokerBusy(t *testing.T) {
	a := &agent{}
	s, other, events := heldBy(t, a)
	dir := t.TempDir()
	s.b.o.AgentPath = filepath.Join(dir, "probe")
	counted := filepath.Join(dir, "probes")
	// A probe that is slow: those of a thousand clients would be there at once.
	if err := os.WriteFile(s.b.o.AgentPath, []byte("#!/bin/sh\necho >>"+counted+"\nsleep 0.2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.probes.burst, s.reports.burst = 3, 3
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.follow(t.Context(), a)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	drained := make(chan struct{})
	go func() { // it is told to replace its clients
		defer close(drained)
		for {
			if _, _, err := other.Receive(context.Background()); err != nil {
				return
			}
		}
	}()
	start := time.Now()
	tell := func(c wire.Client) {
		if err := other.Send(ctx, wire.Message{Type: wire.State, Client: &c}); err != nil {
			t.Fatal(err)
		}
	}
	const clients = 1000
	for i := range clients {
		tell(wire.Client{Phase: wire.InService, Starts: i})
		tell(wire.Client{Phase: wire.Waiting, Starts: i, Ended: "signal: killed"})
		if err := other.Send(ctx, wire.Message{Type: wire.Pong, Client: &wire.Client{Phase: wire.InService}}); err != nil {
			t.Fatal(err)
		}
	}
	tell(wire.Client{Phase: wire.InService, Starts: clients})
	for now, changed := s.watch(); !now.Ready; now, changed = s.watch() {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("the last client is not confirmed")
		}
	}
	other.Close()
	<-ended
	<-drained
	most := 3 + int(time.Since(start)/(100*time.Millisecond)) + 1
	lines, err := os.ReadFile(counted)
	if err != nil || len(lines) > most {
		t.Errorf("%d probes in %s, %v", len(lines), time.Since(start), err)
	}
	failed := 0
	for _, e := range events() {
		if e.Reason == ClientFailed || e.Reason == ClientHung {
			failed++
		}
	}
	if failed > most {
		t.Errorf("%d events in %s", failed, time.Since(start))
	}
}
