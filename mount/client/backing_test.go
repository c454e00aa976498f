package client

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// newBacking returns a client's side and the agent's.
func newBacking(t *testing.T) (*backing, *wire.Conn) {
	t.Helper()
	agent, child, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.NewConn(child)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close(); conn.Close() })
	b := &backing{agreed: true}
	b.init(conn)
	return b, agent
}

func heard(t *testing.T, agent *wire.Conn, want wire.Type) wire.Message {
	t.Helper()
	m, files, err := agent.Receive(t.Context())
	wire.CloseAll(files)
	if err != nil || m.Type != want {
		t.Fatalf("heard %s, %v; want %s", m.Type, err, want)
	}
	return m
}

type answer struct {
	number int32
	err    error
}

func ask(t *testing.T, b *backing) <-chan answer {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan answer, 1)
	go func() {
		defer f.Close()
		number, err := b.back(f)
		got <- answer{number, err}
	}()
	return got
}

func TestBackGetsItsOwnAnswer(t *testing.T) {
	b, agent := newBacking(t)
	one := ask(t, b)
	first := heard(t, agent, wire.Back)
	two := ask(t, b)
	second := heard(t, agent, wire.Back)
	b.deliver(wire.Message{Type: wire.Backed, Request: second.Request, Backing: 22})
	b.deliver(wire.Message{Type: wire.Backed, Request: first.Request, Backing: 11})
	if got := <-one; got.number != 11 || got.err != nil {
		t.Errorf("first: %+v", got)
	}
	if got := <-two; got.number != 22 || got.err != nil {
		t.Errorf("second: %+v", got)
	}
}

func TestNumberThatNobodyWaitsForIsGivenBack(t *testing.T) {
	b, agent := newBacking(t)
	b.deliver(wire.Message{Type: wire.Backed, Request: 12345, Backing: 7})
	if m := heard(t, agent, wire.Unback); len(m.Backings) != 1 || m.Backings[0] != 7 {
		t.Errorf("gave back %v", m.Backings)
	}
	b.deliver(wire.Message{Type: wire.Backed, Request: 12345}) // a refusal is nothing to give back
	got := ask(t, b)
	late := heard(t, agent, wire.Back)
	if a := <-got; !errors.Is(a.err, ErrNotBacked) {
		t.Fatalf("a broker that does not answer: %+v", a)
	}
	b.deliver(wire.Message{Type: wire.Backed, Request: late.Request, Backing: 8})
	if m := heard(t, agent, wire.Unback); m.Backings[0] != 8 {
		t.Errorf("gave back %v", m.Backings)
	}
	began := time.Now()
	if a := <-ask(t, b); !errors.Is(a.err, ErrNotBacked) || time.Since(began) >= backTimeout {
		t.Errorf("a broker that did not answer is asked again at once: %+v", a)
	}
}

func TestBrokerThatRefusesIsLeftAlone(t *testing.T) {
	b, agent := newBacking(t)
	for range refusals {
		got := ask(t, b)
		heard(t, agent, wire.Back)
		b.deliver(wire.Message{Type: wire.Backed, Text: "lost the broker"}) // for whatever was asked
		if a := <-got; !errors.Is(a.err, ErrNotBacked) {
			t.Fatalf("%+v", a)
		}
	}
	if a := <-ask(t, b); !errors.Is(a.err, ErrNotBacked) {
		t.Fatalf("%+v", a)
	}
	b.unback(5)
	heard(t, agent, wire.Unback) // and no question before
}

func TestNoAgreementNoQuestion(t *testing.T) {
	b, _ := newBacking(t)
	b.agreed = false
	if a := <-ask(t, b); !errors.Is(a.err, ErrNotBacked) {
		t.Errorf("%+v", a)
	}
}
