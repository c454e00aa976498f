package agent

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// refusedBacking is what a client that must be told no makes of that.
const refusedBacking = 1 << 20

// askForBackings asks for a file every few milliseconds until the client ends.
func askForBackings(c *wire.Conn) {
	ctx := context.Background()
	f, err := os.Open(os.DevNull)
	if err != nil {
		os.Exit(97)
	}
	_ = c.Send(ctx, wire.Message{Type: wire.Known, Backings: []int32{11, 12}})
	tick := time.NewTicker(5 * time.Millisecond)
	for request := uint64(os.Getpid()) << 20; ; request++ {
		if c.Send(ctx, wire.Message{Type: wire.Back, Request: request}, f) != nil {
			return
		}
		<-tick.C
	}
}

func ofType(t wire.Type) func(wire.Message) bool {
	return func(m wire.Message) bool { return m.Type == t }
}

func returned(number int32) func(wire.Message) bool {
	return func(m wire.Message) bool { return m.Type == wire.Unback && m.Backings[0] == number }
}

func TestAgentRelaysBackingFiles(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "back")
	b.hand(mount.Volume{ID: "v"}, false)
	m := b.until("what the client knows", ofType(wire.Known))
	if len(m.Backings) != 2 || m.Backings[0] != 11 {
		t.Errorf("known %v", m.Backings)
	}
	m = b.until("a request", ofType(wire.Back))
	b.send(wire.Message{Type: wire.Backed, Request: m.Request, Backing: 7})
	b.until("the number", returned(7))
}

// What was said while the broker was away, and what must not wait for it.
func TestAgentAnswersForABrokerThatIsAway(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "back")
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("a request", ofType(wire.Back))
	b.listener.Close()
	b.conn.Close()
	b.listen()
	if m := b.accept(); m.Type != wire.Deposit {
		t.Fatalf("the agent says %s", m.Type)
	}
	// A broker that has not accepted the session yet cannot be asked.
	b.send(wire.Message{Type: wire.Ping})
	b.until("a sign of life", func(m wire.Message) bool {
		if m.Type == wire.Back || m.Type == wire.Unback {
			t.Errorf("%s before the session was accepted", m.Type)
		}
		return m.Type == wire.Pong
	})
	b.send(wire.Message{Type: wire.Accepted})
	b.until("a refusal that the client was given", returned(refusedBacking))
	b.until("the next request", ofType(wire.Back))
}

// An answer that comes when its client is dead is for nobody. The next client may not take it for its own.
func TestAgentGivesTheNextClientNoAnswerBeforeItAsks(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "back")
	b.hand(mount.Volume{ID: "v"}, false)
	m := b.until("a request", ofType(wire.Back))
	b.send(wire.Message{Type: wire.Replace})
	b.send(wire.Message{Type: wire.Backed, Request: m.Request, Backing: 9})
	b.until("the next client", ofType(wire.Known))
	b.until("its request", func(now wire.Message) bool { return now.Type == wire.Back && now.Request>>20 != m.Request>>20 })
}
