package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// MaxBackings is how many files of a session may be backing files at once.
const MaxBackings = wire.MaxBackings

// ErrNotBacked: the kernel cannot read and write this file by itself, or nobody could be asked. The client has to serve it.
var ErrNotBacked = errors.New("no backing file")

const (
	// backTimeout bounds how long an OPEN waits for the broker, which takes a fraction of a millisecond.
	backTimeout = time.Second
	// backPause is how long a broker that does not answer, or always refuses, is left alone, so that not every OPEN has to wait for it.
	backPause = 10 * time.Second
	// refusals is how many in a row count as no.
	refusals = 3
)

// backing asks the broker for what the client has no privilege for: to let the kernel read and write files by itself.
type backing struct {
	conn   *wire.Conn
	agreed bool // set before the first request

	mu      sync.Mutex // guards what follows
	last    uint64
	waiting map[uint64]chan wire.Message
	paused  time.Time // nobody is asked before
	refused int       // how often in a row
	over    bool      // nobody hears answers any more
}

// init starts the requests' numbers at random: an answer that a client before did not live to see must not look like one to this client.
func (b *backing) init(conn *wire.Conn) {
	b.conn, b.last, b.waiting = conn, rand.Uint64()>>1, map[uint64]chan wire.Message{}
}

// CanBack tells whether kernel and client have agreed that the kernel may read and write files by itself (FUSE passthrough). It is known when RawFileSystem.Init runs.
func (s *Session) CanBack() bool { return s.backing.agreed }

// Back registers a file as the backing file of a node, whose OPENs are then answered with FOPEN_PASSTHROUGH and the number that it returns. f must be a regular file that is open for
// reading and writing, without O_APPEND, or for reading on a read-only mount; it may be closed afterwards. The kernel wants one number per node at a time, and does not
// mix it with other ways of opening the node. The number survives this process, so it must be noted in the session's memory. ErrNotBacked says that the client
// has to serve the file, which is no failure; it comes at once, or after a second if the broker hangs.
func (s *Session) Back(f *os.File) (int32, error) { return s.backing.back(f) }

// Unback takes a number back, when the last handle of its node has been released.
func (s *Session) Unback(number int32) { s.backing.unback(number) }

// Known tells which numbers of earlier clients are still in use; all others are taken back. A client that uses Back calls it once in RawFileSystem.Init.
func (s *Session) Known(numbers []int32) error {
	return s.backing.tell(wire.Message{Type: wire.Known, Backings: numbers})
}

func (b *backing) back(f *os.File) (int32, error) {
	request, answer, err := b.begin()
	if err != nil {
		return 0, err
	}
	if err := b.tell(wire.Message{Type: wire.Back, Request: request}, f); err != nil {
		b.giveUp(request, answer)
		return 0, errors.Join(ErrNotBacked, err)
	}
	timeout := time.NewTimer(backTimeout)
	defer timeout.Stop()
	select {
	case m := <-answer:
		return b.judge(m)
	case <-timeout.C:
	}
	if m, late := b.giveUp(request, answer); late {
		return b.judge(m)
	}
	return 0, fmt.Errorf("%w: the broker does not answer", ErrNotBacked)
}

// judge leaves a broker alone that refuses whatever it is asked.
func (b *backing) judge(m wire.Message) (int32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.Backing > 0 {
		b.refused = 0
		return m.Backing, nil
	}
	if b.refused++; b.refused >= refusals {
		b.refused, b.paused = 0, time.Now().Add(backPause)
	}
	return 0, fmt.Errorf("%w: %s", ErrNotBacked, m.Text)
}

// giveUp ends waiting for an answer, unless it has come in the last moment.
func (b *backing) giveUp(request uint64, answer <-chan wire.Message) (m wire.Message, late bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiting, request)
	select {
	case m = <-answer:
		return m, true
	default:
		b.paused = time.Now().Add(backPause)
		return m, false
	}
}

func (b *backing) begin() (uint64, chan wire.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.agreed || b.over || time.Now().Before(b.paused) {
		return 0, nil, ErrNotBacked
	}
	b.last++
	answer := make(chan wire.Message, 1)
	b.waiting[b.last] = answer
	return b.last, answer, nil
}

// deliver hands an answer to who has asked. What nobody waits for any more is given back.
func (b *backing) deliver(m wire.Message) {
	if !b.handOver(m) && m.Backing > 0 {
		b.unback(m.Backing)
	}
}

func (b *backing) handOver(m wire.Message) (taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.Request == 0 {
		for request, answer := range b.waiting {
			delete(b.waiting, request)
			answer <- wire.Message{Type: wire.Backed, Text: m.Text}
		}
		return false
	}
	answer, ok := b.waiting[m.Request]
	if ok {
		delete(b.waiting, m.Request)
		answer <- m
	}
	return ok
}

// stop lets nobody wait for an answer that nobody will hear. A number that is on its way is one that the next client does not know, and is taken back then.
func (b *backing) stop() {
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	b.handOver(wire.Message{Type: wire.Backed, Text: "the client ends"})
}

func (b *backing) unback(number int32) {
	// If the agent cannot be told, this process is about to end, and the next one tells what it knows.
	_ = b.tell(wire.Message{Type: wire.Unback, Backings: []int32{number}})
}

func (b *backing) tell(m wire.Message, files ...*os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), backTimeout)
	defer cancel()
	return b.conn.Send(ctx, m, files...)
}
