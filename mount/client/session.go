package client

import (
	"context"
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/sidemount/sidemount/mount"
)

// Options of a client that its main decides.
type Options struct {
	// Flush writes everything that was acknowledged to stable storage. Serve calls it once no request is running any more,
	// when the client must end. nil: the file system keeps nothing back.
	Flush func(ctx context.Context) error
	// Debug logs every request and answer. Default false.
	Debug bool
}

// Session is the client's side of a mount session.
type Session struct {
	volume mount.Volume
}

// Open takes the inherited file 3 and waits for the agent's config message.
func Open() (*Session, error) { return nil, errors.ErrUnsupported }

// Volume is what to serve, its Secret included.
func (s *Session) Volume() mount.Volume { return s.volume }

// Resumed tells whether a client has served this session before.
func (s *Session) Resumed() bool { return false }

// Get returns a value that this or an earlier client of the session has Put.
func (s *Session) Get(key string) ([]byte, bool) { return nil, false }

// Put keeps a small value for the session's life; it survives kill -9 of the client. An empty value removes the key.
func (s *Session) Put(key string, value []byte) error { return errors.ErrUnsupported }

// Memory is the client's own part of the session's memory: shared, zero at the session's birth, the same bytes for every
// client of the session. It is 96 MiB of address space; only pages that were written cost memory.
func (s *Session) Memory() []byte { return nil }

// Fail tells the agent why the client cannot serve and returns the exit code to end with.
func (s *Session) Fail(err error) int { return 1 }

// Serve says ready, receives the fuse file, attaches fs and serves until SIGTERM (the end of ctx) has flushed, or until the kernel ended the mount.
func (s *Session) Serve(ctx context.Context, fs fuse.RawFileSystem, o Options) error {
	return errors.ErrUnsupported
}
