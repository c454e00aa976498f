package agent

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// sendTimeout bounds a message to the broker or the client. Both read all the time; one that does not is replaced by other means.
const sendTimeout = time.Second

// supervisor is the agent's only decider. All its methods run on the goroutine of run.
type supervisor struct {
	*Agent
	reaper *reaper
	link   *link
	conn   *wire.Conn // the broker, nil while there is none
	held   *holding   // the session, nil before the first one

	client  *process // nil while none runs
	view    wire.Client
	before  wire.Client // the view when the present client was started
	backoff backoff
	// down is when the last client died that had served.
	down time.Time
	// killed is why the supervisor itself has killed the client.
	killed string

	next     *time.Timer // starts the next client
	late     *time.Timer // the client takes too long to start
	end      *time.Timer // the end may take no longer
	nudge    *time.Timer // pings a client that stands by
	relief   *time.Timer // nobody takes over
	ending   bool
	yielding bool // the session goes to another agent as soon as the client has ended
	leaving  bool // the agent has been asked to end, and serves on until it is relieved
	prepared bool // the client is ready and has not been given the connection
	answered bool // the client has answered the last ping
	// acquainted: this connection's broker has the session.
	acquainted bool
	// owed is what the client has to say to the broker and could not yet.
	owed []wire.Message
	// refusal is what the broker said last, if it refused.
	refusal string
}

func newSupervisor(a *Agent, r *reaper, l *link) *supervisor {
	s := &supervisor{Agent: a, reaper: r, link: l, answered: true}
	for _, timer := range []**time.Timer{&s.next, &s.late, &s.end, &s.nudge, &s.relief} {
		*timer = time.NewTimer(0)
		(*timer).Stop()
	}
	s.backoff.burst = a.o.Burst
	s.view.Phase = wire.Waiting
	return s
}

// drop gives everything back; no client runs any more.
func (s *supervisor) drop() {
	if s.held != nil {
		s.held.close()
		s.held = nil
	}
}

// run returns when the session has been ended in order, by the broker or by the end of ctx.
func (s *supervisor) run(ctx context.Context) error {
	asked := ctx.Done()
	for !s.ended() {
		select {
		case e := <-s.link.events:
			s.onLink(e)
		case e := <-s.clientEvents():
			s.onClient(e)
		case <-s.next.C:
			s.start()
		case <-s.late.C:
			s.kill("hung while starting")
		case <-s.end.C:
			s.giveUp()
		case <-s.nudge.C:
			s.onNudge()
		case <-asked:
			asked = nil
			s.onAsked()
		case <-s.relief.C:
			s.beginEnd(s.o.Grace)
		}
	}
	s.view.Phase = wire.Terminated
	s.view.Flushed = s.view.Flushed || !s.owes()
	s.send(wire.Message{Type: wire.Closed, Client: &s.view})
	if !s.view.Flushed {
		return ErrUnflushed
	}
	return nil
}

// ended: there is no client any more, and none is needed for what is not yet written out.
func (s *supervisor) ended() bool {
	if !s.ending || s.client != nil {
		return false
	}
	return !s.owes() || s.view.Flushed || s.killed == gaveUp
}

// owes: the session's memory may hold what only a client of this agent will write out.
func (s *supervisor) owes() bool { return s.held != nil && s.held.taken && !s.held.standsBy() }

func (s *supervisor) clientEvents() <-chan processEvent {
	if s.client == nil {
		return nil
	}
	return s.client.events
}

// onLink handles what the connection to the broker brings.
func (s *supervisor) onLink(e linkEvent) {
	switch {
	case e.conn != nil:
		s.conn, s.acquainted = e.conn, false
		s.introduce()
	case e.lost != nil:
		if s.conn != nil && s.held != nil {
			s.log.warn("lost the broker", "error", e.lost)
		}
		s.conn = nil
		s.answerFor()
	default:
		s.onOrder(e)
	}
}

// introduce tells a new broker what there is.
func (s *supervisor) introduce() {
	if s.held == nil {
		s.send(wire.Message{Type: wire.Hello, Generation: s.o.Generation})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	m, files := s.held.deposit(s.view, s.o.Generation)
	if err := s.conn.Send(ctx, m, files...); err != nil {
		s.log.warn("deposit the session", "error", err)
		s.conn.Close()
	}
}

// send tells the broker something. A broker that cannot be told will ask again when it is back.
func (s *supervisor) send(m wire.Message) {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	if err := s.conn.Send(ctx, m); err != nil {
		s.conn.Close()
	}
}

func (s *supervisor) report() { s.send(wire.Message{Type: wire.State, Client: &s.view}) }

// onOrder handles a message of the broker.
func (s *supervisor) onOrder(e linkEvent) {
	m := e.message
	switch {
	case (m.Type == wire.Session || m.Type == wire.Standby) && s.held == nil:
		s.held, s.acquainted, s.owed, s.refusal = newHolding(m, e.files), true, nil, ""
		s.log.info("got the session", "session", m.Session, "volume", m.Volume.ID, "resumed", m.Resumed, "standby", s.held.standsBy())
		if !s.ending {
			s.start()
		}
		return
	case m.Type == wire.Accepted && s.held != nil:
		s.log.info("the broker has the session again", "session", s.held.id)
		s.acquainted = true
		s.report()
		s.settle()
		s.tellLeaving()
	case m.Type == wire.Refused:
		s.onRefused(m)
	case m.Type == wire.Update && s.held != nil:
		s.onUpdate(m)
	case m.Type == wire.Promote && s.held != nil && s.held.standsBy():
		s.onPromote()
	case m.Type == wire.Yield && s.held != nil && !s.yielding:
		s.onYield(m.Grace)
	case m.Type == wire.Stay:
		s.onStay(m.Grace)
	case m.Type == wire.Replace:
		s.kill("hung")
	case m.Type == wire.Ping:
		s.onPing()
	case m.Type == wire.Backed:
		s.onBacked(m)
	case m.Type == wire.Close:
		s.log.info("the session is being closed")
		s.beginEnd(m.Grace)
	default:
		s.log.warn("the broker breaks the protocol", "type", m.Type)
		s.conn.Close()
	}
	wire.CloseAll(e.files)
}

// onRefused: what is stale is dropped, so that the next introduction is a hello. Everything else is tried again.
func (s *supervisor) onRefused(m wire.Message) {
	if m.Cause != wire.CauseStale || s.held == nil {
		// It is asked several times in a second, and mostly says the same.
		if m.Text != s.refusal {
			s.log.info("the broker refuses", "reason", m.Text)
		}
		s.refusal = m.Text
		return
	}
	s.log.warn("the session has ended without this agent", "session", s.held.id)
	s.held.close()
	s.held = nil
	s.next.Stop()
	s.backoff.reset()
	s.kill("session lost")
}

// onUpdate takes a mended volume. Only a session that nobody has served can change, so nothing can be lost by killing its client.
func (s *supervisor) onUpdate(m wire.Message) {
	if s.view.Served > 0 || s.held.taken {
		return
	}
	s.held.volume = *m.Volume
	s.backoff.reset()
	if s.client != nil {
		s.kill("volume changed")
		return
	}
	if !s.ending {
		s.next.Reset(0)
	}
}

// onPing answers at once for the agent, and for the client with what the ping before has shown.
func (s *supervisor) onPing() {
	view := s.view
	// A client that is ending flushes, and answers nothing else.
	view.Alive = s.client == nil || s.ending || s.yielding || s.view.Phase != wire.InService || s.answered
	if s.client != nil && s.view.Phase == wire.InService && !s.ending && !s.yielding {
		s.answered = false
		s.toClient(wire.Message{Type: wire.Ping})
	}
	s.send(wire.Message{Type: wire.Pong, Client: &view})
}

// kill ends the client without asking it. The requests that it has taken go to the next one.
func (s *supervisor) kill(why string) {
	if s.client == nil {
		return
	}
	s.log.warn("killing the client", "reason", why, "pid", s.client.pid)
	s.killed = why
	s.client.signal(unix.SIGKILL)
}

// canResend tells whether the kernel gives the next client what the last one took.
func (s *supervisor) resend() error {
	if !s.held.taken || !fuse.CanResend(s.held.init) {
		return nil
	}
	return fuse.Resend(s.held.device)
}
