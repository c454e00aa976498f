package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

const (
	// introduction bounds how long a peer may take to say who it is.
	introduction = 5 * time.Second
	// release bounds how long an agent waits for the processes of the one before it.
	release = 10 * time.Second
	// sendTimeout bounds a message to an agent, which reads all the time.
	sendTimeout = time.Second
	// impatience is how long a restored session waits for its old agent when a new one is there already.
	impatience = 2 * time.Second
	// firstRetry and longestRetry are the pauses after an accept that has failed.
	firstRetry   = 10 * time.Millisecond
	longestRetry = time.Second
	// peers is how many connections a session handles at once; there is one agent, and perhaps the next.
	peers = 4
)

// agent is a connected agent.
type agent struct {
	conn *wire.Conn
	// process is its pidfd, nil before Linux 6.5.
	process *os.File
	// heard is when it last answered a ping.
	heard time.Time
	// followed: it has got its answer, and is listened to.
	followed bool
	// generation is its place among the agents of the session.
	generation int
	// resent and replayed are what it has told last, once it is counted. What one that returned has told an earlier broker is counted there.
	resent, replayed  uint64
	counted, returned bool
	// leaving: it has been asked to end.
	leaving bool
}

// tell sends the agent a message. One that cannot take it has broken its connection, which its receiver sees.
func (a *agent) tell(ctx context.Context, m wire.Message, files ...*os.File) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := a.conn.Send(ctx, m, files...)
	if err != nil {
		a.conn.Close()
	}
	return err
}

// accept serves the session's socket until it is closed.
func (s *session) accept(ctx context.Context, running *sync.WaitGroup) {
	room := make(chan struct{}, peers)
	for {
		conn, err := s.awaitPeer(ctx)
		if err != nil {
			return
		}
		if s.met.wait(ctx) != nil {
			conn.Close()
			return
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		running.Go(func() {
			defer conn.Close()
			s.meet(ctx, conn)
			// Not waited for: whoever serves what cannot be closed may outlive the session, and even this process's wish to end.
			go func() {
				conn.Settle()
				<-room
			}()
		})
	}
}

// awaitPeer returns the next connection; the error is that there will be none. What else an accept can fail by passes: the process or the machine has no file, or no memory, left.
func (s *session) awaitPeer(ctx context.Context) (*wire.Conn, error) {
	for pause := firstRetry; ; pause = min(2*pause, longestRetry) {
		conn, err := s.listener.Accept()
		if err == nil || ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return conn, err
		}
		if pause == firstRetry {
			s.log.WithError(err).Error("accept agents")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// meet finds out who connected and serves it until it goes.
func (s *session) meet(ctx context.Context, conn *wire.Conn) {
	peer, err := conn.Peer()
	if err == nil {
		err = authorize(peer, s.request)
	}
	if err != nil {
		s.refuse(ctx, conn, "", err)
		return
	}
	conn.Expel(s.b.control.Has)
	m, got, err := receiveWithin(ctx, conn, introduction)
	if err != nil {
		s.log.WithError(err).Warn("peer did not introduce itself")
		return
	}
	a := &agent{conn: conn, heard: time.Now(), generation: m.Generation, returned: m.Type != wire.Hello}
	if a.process, err = conn.PeerProcess(); err == nil {
		defer a.process.Close()
	}
	if s.isStandby(m) {
		s.receiveStandby(ctx, a, m, got)
		return
	}
	if err := s.claim(ctx, a, m); err != nil {
		conn.Discard(ctx, got)
		s.refuse(ctx, conn, "", err)
		return
	}
	defer s.unseat(a)
	cause, err := s.exchange(ctx, a, m, got)
	if err != nil {
		s.refuse(ctx, conn, cause, err)
		return
	}
	s.follow(ctx, a)
}

func receiveWithin(ctx context.Context, conn *wire.Conn, d time.Duration) (wire.Message, []*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return conn.Receive(ctx)
}

func (s *session) refuse(ctx context.Context, conn *wire.Conn, cause wire.Cause, err error) {
	// An agent whose time has not come, or has passed, asks several times in a second.
	if errors.Is(err, errNotTurn) {
		s.log.WithError(err).Debug("refused a peer")
	} else {
		s.log.WithError(err).Warn("refused a peer")
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	// The peer is told as a courtesy; it is hung up on anyway.
	_ = conn.Send(ctx, wire.Message{Type: wire.Refused, Cause: cause, Text: err.Error()})
}

// claim makes a the session's agent, if there is none and it may be. Only an agent that may have the session can start the wait that ends with its loss.
func (s *session) claim(ctx context.Context, a *agent, m wire.Message) error {
	if m.Type == wire.Hello {
		s.mu.Lock()
		err := s.admits(m)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if err := s.awaitFiles(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admits(m); err != nil {
		return err
	}
	s.agent = a
	return nil
}

// admits tells whether an agent may have the session now. The caller holds mu.
func (s *session) admits(m wire.Message) error {
	switch {
	case m.Type == wire.Hello && s.switching:
		return fmt.Errorf("the session is being taken over: %w", errNotTurn)
	case m.Type == wire.Hello && m.Generation != s.generation:
		return fmt.Errorf("the session has an agent of generation %d: %w", s.generation, errNotTurn)
	case s.agent != nil:
		return errors.New("the session has an agent already")
	}
	return nil
}

// exchange hands the session to an agent that has nothing, or takes it from one that has it.
func (s *session) exchange(ctx context.Context, a *agent, m wire.Message, got []*os.File) (wire.Cause, error) {
	switch m.Type {
	case wire.Hello:
		return "", s.hand(ctx, a)
	case wire.Deposit:
		return s.take(ctx, a, m, got)
	}
	a.conn.Discard(ctx, got)
	return "", fmt.Errorf("%s is no introduction: %w", m.Type, wire.ErrProtocol)
}

// hand gives an agent everything, once the processes of the agent before have gone.
func (s *session) hand(ctx context.Context, a *agent) error {
	s.mu.Lock()
	held, ending := s.files, s.ending
	s.mu.Unlock()
	if ending || held == nil {
		return fmt.Errorf("session %s: %w", s.request.ID, mount.ErrClosed)
	}
	wait, cancel := context.WithTimeout(ctx, release)
	defer cancel()
	if err := released(wait, held.watch); err != nil {
		return err
	}
	if !fuse.Connected(held.device) {
		s.lose("somebody has ended the mount")
		return fmt.Errorf("session %s: %w", s.request.ID, mount.ErrClosed)
	}
	hold, watch, err := newLease()
	if err != nil {
		return err
	}
	defer hold.Close()
	s.mu.Lock()
	if held.watch != nil {
		held.watch.Close()
	}
	held.watch = watch
	v, resumed := s.volume, s.taken
	s.taken = true
	s.client, s.counted, s.known = wire.Client{}, 0, true
	s.mu.Unlock()
	return a.tell(ctx, wire.Message{
		Type: wire.Session, Session: s.request.ID, Mount: s.mount, Volume: &v, Init: s.init, Answer: s.answer, Resumed: resumed,
	}, held.device, held.memory, hold, watch)
}

// awaitFiles is for an agent that comes with nothing to a session of which this broker has nothing either. The agent that has it may be on its way.
func (s *session) awaitFiles(ctx context.Context) error {
	s.mu.Lock()
	have := s.files != nil || s.ending
	s.mu.Unlock()
	if have {
		return nil
	}
	select {
	case <-s.returned:
	case <-ctx.Done():
	case <-time.After(impatience):
		s.lose("broker and agent were both gone")
	}
	return errors.New("the session's files are not here yet")
}

// take gets the session back from an agent after a restart of the broker. An agent whose connection merely broke deposits too; then there is nothing to take.
func (s *session) take(ctx context.Context, a *agent, m wire.Message, got []*os.File) (wire.Cause, error) {
	if cause, err := s.takeFiles(ctx, a, m, got); err != nil {
		return cause, err
	}
	s.learn(m)
	if err := s.setGeneration(m.Generation); err != nil {
		return "", err
	}
	if err := a.tell(ctx, wire.Message{Type: wire.Accepted}); err != nil {
		return "", err
	}
	s.log.Info("the agent is back")
	return "", nil
}

// takeFiles takes device, memory and the serving agent's lease, if this broker has none. It owns got.
func (s *session) takeFiles(ctx context.Context, a *agent, m wire.Message, got []*os.File) (wire.Cause, error) {
	s.mu.Lock()
	have, ending := s.files != nil, s.ending
	s.mu.Unlock()
	if m.Session != s.request.ID || m.Mount != s.mount || ending {
		a.conn.Discard(ctx, got)
		return wire.CauseStale, fmt.Errorf("deposit of another session: %w", mount.ErrRefused)
	}
	if !have {
		if err := s.verify(m, got); err != nil {
			a.conn.Discard(ctx, got)
			return "", err
		}
		have = !s.restoreFrom(m, got)
	}
	if have {
		a.conn.Discard(ctx, got)
	}
	return "", nil
}

// verify checks what an unprivileged process claims to be the session's.
func (s *session) verify(m wire.Message, got []*os.File) error {
	device, memory, watch := got[0], got[1], got[2]
	number, known := fuse.DeviceOf(device)
	switch {
	case !fuse.IsDevice(device) || known && number != s.device:
		return fmt.Errorf("deposited file is not the session's connection: %w", mount.ErrRefused)
	case !isMemory(memory):
		return fmt.Errorf("deposited file is not the session's memory: %w", mount.ErrRefused)
	case !isLease(watch):
		return fmt.Errorf("deposited file is not the session's lease: %w", mount.ErrRefused)
	case m.Volume.ID != s.request.Volume.ID || m.Volume.Client != s.request.Volume.Client:
		return fmt.Errorf("deposited volume is not the session's: %w", mount.ErrRefused)
	}
	if _, err := fuse.Replay(m.Init, m.Answer); err != nil {
		return err
	}
	return nil
}

// restoreFrom makes the files the session's, unless somebody else has been faster.
func (s *session) restoreFrom(m wire.Message, got []*os.File) (taken bool) {
	s.update(func() {
		if taken = s.files == nil && !s.ending; !taken {
			return
		}
		s.files = &files{device: got[0], memory: got[1], watch: got[2]}
		s.init, s.answer = m.Init, m.Answer
		close(s.returned)
	})
	return taken
}

// learn takes from the agent that serves what a broker forgets when it ends.
func (s *session) learn(m wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = s.taken || m.Resumed
	s.client = wire.Client{} // so that the agent's next report counts as news
	if !s.volumeKnown {
		s.volume, s.volumeKnown = *m.Volume, true
	}
	if s.known {
		return
	}
	s.known, s.served = true, m.Client.Served
	if m.Client.Phase == wire.InService {
		s.counted = m.Client.Starts
	}
}
