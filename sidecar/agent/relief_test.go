package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// leaving starts an agent that serves, and asks it to end.
func leaving(t *testing.T, relief time.Duration) (*fakeBroker, *running) {
	t.Helper()
	b := newBroker(t)
	r := run(t, b.socket, "serve", func(o *Options) { o.Relief = relief })
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("service", phase(wire.InService, 1))
	r.cancel()
	b.until("the word that it leaves", func(m wire.Message) bool { return m.Type == wire.Leaving })
	return b, r
}

func isClosed(m wire.Message) bool { return m.Type == wire.Closed }

func TestAgentServesOnUntilItIsRelieved(t *testing.T) {
	b, r := leaving(t, time.Minute)
	b.send(wire.Message{Type: wire.Stay, Grace: time.Minute})
	// It goes on as ever, also through the death of its client.
	b.send(wire.Message{Type: wire.Replace})
	b.until("the next client", phase(wire.InService, 2))
	b.send(wire.Message{Type: wire.Yield, Grace: time.Second})
	if err := r.wait(); err != nil {
		t.Errorf("after it was relieved: %v", err)
	}
	if !strings.Contains(r.log.String(), "let go of the session") {
		t.Error("it has kept the session to its end")
	}
}

func TestAgentEndsInOrderWhenNobodyRelievesIt(t *testing.T) {
	for name, answer := range map[string]*wire.Message{
		"no answer":            nil,
		"nobody came":          {Type: wire.Stay, Grace: 10 * time.Millisecond},
		"nobody will come":     {Type: wire.Stay},
		"the session is ended": {Type: wire.Close, Grace: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			relief := time.Minute
			if answer == nil {
				relief = 50 * time.Millisecond
			}
			b, r := leaving(t, relief)
			if answer != nil {
				b.send(*answer)
			}
			if m := b.until("the end", isClosed); !m.Client.Flushed {
				t.Error("the client has not flushed")
			}
			if err := r.wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAgentTellsTheNextBrokerThatItLeaves(t *testing.T) {
	b, r := leaving(t, time.Minute)
	b.listener.Close()
	b.conn.Close()
	b.listen()
	if m := b.accept(); m.Type != wire.Deposit {
		t.Fatalf("the agent says %s", m.Type)
	}
	b.send(wire.Message{Type: wire.Accepted})
	b.until("the word that it leaves", func(m wire.Message) bool { return m.Type == wire.Leaving })
	b.send(wire.Message{Type: wire.Stay})
	b.until("the end", isClosed)
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestAgentWithNothingToServeEndsAtOnce(t *testing.T) {
	b := newBroker(t)
	r := run(t, b.socket, "serve", func(o *Options) { o.Relief = time.Minute })
	if m := b.accept(); m.Type != wire.Hello {
		t.Fatalf("the agent says %s", m.Type)
	}
	r.cancel()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}
