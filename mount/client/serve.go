package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	kernel "github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// Options of a client that its main decides.
type Options struct {
	// Flush writes everything that was acknowledged to stable storage. Serve calls it once no request is being executed any more, when the client
	// must end, also when the kernel has ended the mount. nil: the file system keeps nothing back.
	Flush func(ctx context.Context) error
	// FlushTimeout bounds Flush. Default 10 min; the agent kills the client at its own deadline, which is usually sooner.
	FlushTimeout time.Duration
	// Replayed tells how many bytes of writes the client has written again that one before it had acknowledged and not stored. nil: none.
	Replayed func() uint64
	// Debug logs every request and answer. Default false.
	Debug bool
}

// settle bounds how long the end waits for requests that are being executed; one that takes longer is left to the next client.
const settle = 5 * time.Second

// Serve says ready, receives the fuse file, attaches fs, says serving, and serves until ctx ends or the kernel has ended the mount. fs.Init runs before
// the first request. When ctx ends, requests that change something are held back, those being executed finish, and Flush runs; the process must
// then exit, and what it has not answered is answered by the next client.
func (s *Session) Serve(ctx context.Context, fs fuse.RawFileSystem, o Options) error {
	if o.FlushTimeout == 0 {
		o.FlushTimeout = 10 * time.Minute
	}
	dev, m, err := s.await(ctx)
	if err != nil {
		return err
	}
	defer dev.Close()
	s.backing.agreed = kernel.CanPassthrough(m.Answer)
	decorated := &once{RawFileSystem: fs, journal: openJournal(s.memory.journal(), s.resumed)}
	if !kernel.CanResend(m.Init) {
		decorated.highest = s.memory.highest
		if err := giveUp(dev, s.memory.highest.Load()); err != nil {
			return err
		}
	}
	server, err := s.attach(decorated, dev, m, o)
	if err != nil {
		return err
	}
	if err := s.conn.Send(ctx, wire.Message{Type: wire.Serving}); err != nil {
		return err
	}
	alive := func() *wire.Client {
		c := &wire.Client{Phase: wire.InService, Alive: true, Resent: decorated.resends.Load()}
		if o.Replayed != nil {
			c.Replayed = o.Replayed()
		}
		return c
	}
	err = s.serve(ctx, server, alive)
	return errors.Join(err, finish(decorated, o))
}

// await tells the agent that the engine is up and waits for the connection. The agent sends it as soon as nobody else serves the session; until then it pings.
func (s *Session) await(ctx context.Context) (*os.File, wire.Message, error) {
	if err := s.conn.Send(ctx, wire.Message{Type: wire.Ready}); err != nil {
		return nil, wire.Message{}, err
	}
	for {
		m, files, err := s.next(ctx)
		if err != nil {
			return nil, wire.Message{}, fmt.Errorf("wait for the connection: %w", err)
		}
		if m.Type == wire.Attach {
			// Whoever served until now may have put something there.
			s.state = openState(s.memory.state())
			return files[0], m, nil
		}
		wire.CloseAll(files)
		if m.Type != wire.Ping {
			return nil, wire.Message{}, fmt.Errorf("%s instead of attach: %w", m.Type, wire.ErrProtocol)
		}
		if err := s.conn.Send(ctx, wire.Message{Type: wire.Pong, Client: &wire.Client{Phase: wire.Starting}}); err != nil {
			return nil, wire.Message{}, err
		}
	}
}

// next is the agent's next message, which does not let itself be waited for.
func (s *Session) next(ctx context.Context) (wire.Message, []*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.conn.Receive(ctx)
}

func (s *Session) attach(fs *once, dev *os.File, m wire.Message, o Options) (*fuse.Server, error) {
	options, err := MountOptions(s.volume.Client)
	if err != nil {
		return nil, err
	}
	options.Debug = o.Debug
	return attach(fs, dev, m.Init, m.Answer, options)
}

// serve returns when the client has to end: nil when it was asked to or when the kernel has ended the mount.
func (s *Session) serve(ctx context.Context, server *fuse.Server, alive func() *wire.Client) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve()
	}()
	orphaned := make(chan error, 1)
	go func() { orphaned <- s.listen(ctx, alive) }()
	select {
	case <-ended:
		return nil
	case err := <-orphaned:
		if ctx.Err() != nil {
			return nil
		}
		return err
	case <-ctx.Done():
		return nil
	}
}

// listen answers pings and hands on what the broker says, until the connection to the agent breaks: without its agent, a client must not go on.
func (s *Session) listen(ctx context.Context, alive func() *wire.Client) error {
	defer s.backing.stop()
	for {
		m, files, err := s.conn.Receive(ctx)
		if err != nil {
			return fmt.Errorf("lost the agent: %w", err)
		}
		wire.CloseAll(files)
		if m.Type == wire.Backed {
			s.backing.deliver(m)
			continue
		}
		if m.Type != wire.Ping {
			return fmt.Errorf("%s while serving: %w", m.Type, wire.ErrProtocol)
		}
		if err := s.conn.Send(ctx, wire.Message{Type: wire.Pong, Client: alive()}); err != nil {
			return fmt.Errorf("lost the agent: %w", err)
		}
	}
}

// finish writes everything out. It has contexts of its own, because the one of Serve has ended.
func finish(fs *once, o Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	// A request that does not end keeps its place in the journal and is executed again; flushing what can be flushed is worth more than waiting for it.
	_ = fs.gate.shut(ctx)
	if o.Flush == nil {
		return nil
	}
	ctx, cancel = context.WithTimeout(context.Background(), o.FlushTimeout)
	defer cancel()
	if err := o.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}
