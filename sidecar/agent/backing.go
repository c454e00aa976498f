package agent

import (
	"context"
	"os"

	"github.com/sidemount/sidemount/mount/wire"
)

// The agent relays what its client and the broker have to say to each other about backing files (FUSE passthrough). It understands nothing of it, except that a client
// must not wait for a broker that is away.

// maxOwed bounds what is kept for a broker that is away. What is beyond it is taken back when the next client starts.
const maxOwed = 4096

// ask passes a request on. Without a broker the answer is no, and the client serves the file by itself.
func (s *supervisor) ask(m wire.Message, f *os.File) {
	if s.conn != nil && s.acquainted {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		defer cancel()
		if s.conn.Send(ctx, m, f) == nil {
			return
		}
		s.conn.Close()
	}
	s.toClient(wire.Message{Type: wire.Backed, Request: m.Request, Text: "there is no broker at the moment"})
}

// onBacked passes an answer on. A client that did not ask, because the one that did has died, says that it does not want the file, now or when it tells what it knows.
func (s *supervisor) onBacked(m wire.Message) {
	if s.client != nil && s.client.attached {
		s.toClient(m)
	}
}

// answerFor tells the client that whatever it has asked the broker for will not come.
func (s *supervisor) answerFor() {
	s.acquainted = false
	if s.client != nil && s.client.attached {
		s.toClient(wire.Message{Type: wire.Backed, Text: "lost the broker"})
	}
}

// pass tells the broker something that must not be lost.
func (s *supervisor) pass(m wire.Message) {
	if len(s.owed) == maxOwed {
		return
	}
	s.owed = append(s.owed, m)
	s.settle()
}

// settle tells the broker what could not be told before.
func (s *supervisor) settle() {
	for len(s.owed) > 0 && s.conn != nil && s.acquainted {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		err := s.conn.Send(ctx, s.owed[0])
		cancel()
		if err != nil {
			s.conn.Close()
			return
		}
		s.owed = s.owed[1:]
	}
	if len(s.owed) == 0 {
		s.owed = nil
	}
}
