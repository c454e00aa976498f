package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// gaveUp is why a client is killed that did not end in time.
const gaveUp = "not ended in time"

// start starts a client and gives it the volume. The connection follows when it says that it is ready.
func (s *supervisor) start() {
	if s.client != nil || s.held == nil {
		return
	}
	p, err := startProcess(s.reaper, s.held, s.o)
	s.view.Starts++
	if err != nil {
		s.view.Cause, s.view.Text, s.view.Ended = wire.CauseInternal, err.Error(), "not started"
		s.log.warn("start the client", "error", err)
		s.pause(0)
		return
	}
	s.client, s.killed, s.answered = p, "", true
	s.before = s.view
	s.view.Phase = wire.Starting
	s.late.Reset(s.o.StartTimeout)
	s.toClient(wire.Message{Type: wire.Config, Volume: &s.held.volume, Resumed: s.held.taken}, s.held.memory, s.held.hold)
	s.log.info("started the client", "pid", p.pid, "program", s.o.Argv[0])
	s.report()
}

// toClient sends a message to the client. One that cannot take it is dead or as good as dead.
func (s *supervisor) toClient(m wire.Message, files ...*os.File) {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	err := s.client.conn.Send(ctx, m, files...)
	switch {
	case err == nil:
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET), errors.Is(err, os.ErrClosed):
		// It is dead already and not yet waited for, as a rule; how it ended is then its own affair, and not this signal's.
		s.log.warn("the client has hung up", "pid", s.client.pid)
		s.client.signal(unix.SIGKILL)
	default:
		s.log.warn("tell the client", "error", err)
		s.kill("does not listen")
	}
}

// onClient handles what the client says, and its end.
func (s *supervisor) onClient(e processEvent) {
	if e.ended != nil {
		s.onEnd(e)
		return
	}
	defer wire.CloseAll(e.files)
	switch e.message.Type {
	case wire.Ready:
		s.onReady()
	case wire.Serving:
		s.onServing()
	case wire.Pong:
		s.answered = true
		s.count(e.message)
	case wire.Back:
		s.ask(e.message, e.files[0])
	case wire.Unback, wire.Known:
		s.pass(e.message)
	case wire.Failed:
		s.view.Cause, s.view.Text = e.message.Cause, e.message.Text
		s.log.warn("the client cannot serve", "cause", e.message.Cause, "error", e.message.Text)
	default:
		s.kill("breaks the protocol")
	}
}

// onReady gives the client the connection, unless another agent has it.
func (s *supervisor) onReady() {
	if s.held != nil && s.held.standsBy() {
		s.onPrepared()
		return
	}
	s.attach()
}

// attach gives the client the connection. Nobody else has it: the last client has been waited for, and a last agent's processes hold no lease any more.
func (s *supervisor) attach() {
	if s.client.held != s.held {
		return
	}
	if err := s.resend(); err != nil {
		// The connection is gone; the client will see that at once, and the broker decides what comes next.
		s.log.warn("resend", "error", err)
	}
	s.held.taken, s.client.attached = true, true
	s.toClient(wire.Message{Type: wire.Attach, Init: s.held.init, Answer: s.held.answer}, s.held.device)
}

// count adds what a client has done again to what those before it have.
func (s *supervisor) count(m wire.Message) {
	if m.Client != nil {
		s.view.Resent, s.view.Replayed = s.before.Resent+m.Client.Resent, s.before.Replayed+m.Client.Replayed
	}
}

func (s *supervisor) onServing() {
	now := time.Now()
	s.late.Stop()
	s.client.serving = now
	s.view.Phase, s.view.Pause = wire.InService, 0
	s.view.Cause, s.view.Text = "", ""
	s.view.Served++
	if !s.down.IsZero() {
		s.view.Pause = now.Sub(s.down)
		s.down = time.Time{}
	}
	s.log.info("the client serves", "pid", s.client.pid, "after", now.Sub(s.client.started), "pause", s.view.Pause)
	s.report()
	if s.ending {
		s.askToEnd()
	}
}

// onEnd decides what follows a client.
func (s *supervisor) onEnd(e processEvent) {
	p := s.client
	s.client, s.prepared = nil, false
	s.late.Stop()
	s.nudge.Stop()
	s.view.Ended = p.describe(*e.ended)
	if s.killed != "" {
		s.view.Ended = s.killed
	}
	s.view.Phase = wire.Waiting
	var served time.Duration
	if !p.serving.IsZero() {
		served = time.Since(p.serving)
		s.down = time.Now()
	}
	s.view.Flushed = p.told && e.ended.Exited() && e.ended.ExitStatus() == 0
	s.log.info("the client has ended", "pid", p.pid, "how", s.view.Ended, "flushed", s.view.Flushed)
	if s.held != nil && !fuse.Connected(s.held.device) {
		s.onGone()
	}
	if s.yielding {
		s.letGo()
		return
	}
	if s.ended() {
		return
	}
	s.pause(served)
}

// onGone drops a session whose connection the kernel has ended. The broker learns of it by the hello that follows.
func (s *supervisor) onGone() {
	s.log.warn("the mount has ended", "session", s.held.id)
	s.held.close()
	s.held = nil
	if s.conn != nil && !s.ending {
		s.conn.Close()
	}
}

// pause plans the next client.
func (s *supervisor) pause(served time.Duration) {
	wait := s.backoff.next(served)
	s.report()
	if wait == 0 {
		s.start()
		return
	}
	s.next.Reset(wait)
}

// beginEnd has everything written out and ends. If no client runs, but one has, the next one is awaited: what was acknowledged and not yet written is in the
// session's memory, and only a client can write it.
func (s *supervisor) beginEnd(grace time.Duration) {
	s.end.Reset(grace)
	if s.ending {
		return
	}
	s.ending = true
	switch {
	case s.yielding:
	case s.client == nil && s.owes():
		s.next.Reset(0)
	case s.client == nil:
		s.next.Stop()
	case s.view.Phase == wire.InService:
		s.askToEnd()
	case !s.owes():
		s.kill("not needed")
	}
}

// askToEnd lets the client flush and exit.
func (s *supervisor) askToEnd() {
	s.client.told = true
	s.client.signal(unix.SIGTERM)
}

// giveUp ends without the client's consent. It does not wait for ever: a killed client that hangs in the kernel is the broker's to free.
func (s *supervisor) giveUp() {
	if s.client == nil {
		s.killed = gaveUp
		return
	}
	s.kill(gaveUp)
}
