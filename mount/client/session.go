package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// socket is the file number at which the agent leaves its end of the connection.
const socket = 3

// patience bounds everything that waits for the agent, which answers at once or is dead.
const patience = 30 * time.Second

// Session is the client's side of a mount session.
type Session struct {
	conn    *wire.Conn
	lease   *os.File // held open, never used: the broker sees it close when this process has gone
	volume  mount.Volume
	resumed bool
	memory  *memory
	state   *state
	backing backing
}

// Open takes the inherited file 3 and waits for the agent's config message.
func Open() (*Session, error) {
	conn, err := wire.Inherited(socket)
	if err != nil {
		return nil, fmt.Errorf("this program is started by sidemount-agent: %w", err)
	}
	s, err := open(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func open(conn *wire.Conn) (*Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, files, err := conn.Receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for the volume: %w", err)
	}
	if m.Type != wire.Config {
		wire.CloseAll(files)
		return nil, fmt.Errorf("%s instead of config: %w", m.Type, wire.ErrProtocol)
	}
	memory, err := mapMemory(files[0])
	files[0].Close()
	if err != nil {
		files[1].Close()
		return nil, err
	}
	s := &Session{conn: conn, lease: files[1], volume: *m.Volume, resumed: m.Resumed, memory: memory, state: openState(memory.state())}
	s.backing.init(conn)
	return s, nil
}

// Volume is what to serve, its Secret included.
func (s *Session) Volume() mount.Volume { return s.volume }

// Resumed tells whether an earlier client may have served this session.
func (s *Session) Resumed() bool { return s.resumed }

// Get returns a value that this or an earlier client of the session has Put.
func (s *Session) Get(key string) ([]byte, bool) { return s.state.get(key) }

// Put keeps a small value for the session's life; it survives kill -9 of the client. An empty value removes the key. All keys and values together may
// take 48 KiB, else ErrStateFull.
func (s *Session) Put(key string, value []byte) error { return s.state.put(key, value) }

// Memory is the client's own part of the session's memory: shared, zero at the session's birth, the same bytes for every client of the session. It is more
// than 96 MiB of address space; only pages that were written cost memory.
func (s *Session) Memory() []byte { return s.memory.client() }

// Fail tells the agent why the client cannot serve and returns the exit code to end with. The error's text reaches the pod's events, so it must not hold a
// secret. mount.ErrConfig and mount.ErrUnavailable in err tell people whether they have to change something or to wait.
func (s *Session) Fail(err error) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cause := wire.CauseInternal
	switch {
	case errors.Is(err, mount.ErrConfig):
		cause = wire.CauseConfig
	case errors.Is(err, mount.ErrUnavailable):
		cause = wire.CauseUnavailable
	}
	if err := s.conn.Send(ctx, wire.Message{Type: wire.Failed, Cause: cause, Text: err.Error()}); err != nil {
		return exitUntold
	}
	return exitFailed
}

// Exit codes of a client.
const (
	exitFailed = 1
	exitUntold = 2 // it failed and could not tell the agent why
)
