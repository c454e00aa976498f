package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of a connection. One goroutine may receive while others send.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	send sync.Mutex
	// closing counts what closes received files.
	closing sync.WaitGroup
	// spare is closed when what the last message left to close is; nil before the first. The receiver's alone.
	spare <-chan struct{}
	// unwanted tells of which file systems no file may stay; nil of none.
	unwanted func(major, minor uint32) bool
}

// NewConn takes over a non-blocking SOCK_SEQPACKET socket; on error the caller still owns it.
func NewConn(f *os.File) (*Conn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("use the socket: %w", err)
	}
	// The default of some hosts is below MaxMessage. The kernel caps the value by itself, and a message that does not fit says so.
	if err := control(raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, MaxMessage)
	}); err != nil {
		return nil, fmt.Errorf("size the socket's buffer: %w", err)
	}
	return &Conn{file: f, raw: raw}, nil
}

// Close hangs up. A Receive that waits returns an error.
func (c *Conn) Close() error { return c.file.Close() }

// Send sends a message with its files, which stay the caller's. It waits for room until ctx ends.
func (c *Conn) Send(ctx context.Context, m Message, with ...*os.File) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	if want := files[m.Type]; len(with) != want {
		return fmt.Errorf("send %s with %d files, not %d: %w", m.Type, len(with), want, ErrProtocol)
	}
	c.send.Lock()
	defer c.send.Unlock()
	defer c.bound(ctx, c.file.SetWriteDeadline)()
	if err := holding(with, nil, func(numbers []int) error { return c.write(b, numbers) }); err != nil {
		return fmt.Errorf("send %s: %w", m.Type, because(ctx, err))
	}
	return nil
}

// holding calls do with the numbers of files. They stay those files' until it returns: one that somebody closes meanwhile is closed afterwards, and os.ErrClosed is
// returned for one that was closed before. A number without its file could be anybody's by the time that it is sent.
func holding(files []*os.File, numbers []int, do func(numbers []int) error) error {
	if len(files) == 0 {
		return do(numbers)
	}
	raw, err := files[0].SyscallConn()
	if err == nil {
		var done error
		if err = raw.Control(func(fd uintptr) { done = holding(files[1:], append(numbers, int(fd)), do) }); err == nil {
			return done
		}
	}
	return fmt.Errorf("use %s: %w", files[0].Name(), os.ErrClosed)
}

// write puts one datagram into the socket. It waits for room until the deadline.
func (c *Conn) write(b []byte, numbers []int) error {
	var rights []byte
	if len(numbers) > 0 {
		rights = unix.UnixRights(numbers...)
	}
	var err error
	if werr := c.raw.Write(func(fd uintptr) bool {
		err = retry(func() error { return unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL) })
		return err != unix.EAGAIN
	}); werr != nil {
		return unusable(werr)
	}
	return err
}

// Receive waits for the next message until ctx ends. The files belong to the caller; on error there are none. io.EOF means that the other end has hung up.
// After any other error than ctx's, the connection is of no more use.
func (c *Conn) Receive(ctx context.Context) (Message, []*os.File, error) {
	if c.spare != nil && !await(ctx, c.spare) {
		return Message{}, nil, fmt.Errorf("close what the message before has brought: %w", ctx.Err())
	}
	defer c.bound(ctx, c.file.SetReadDeadline)()
	var b []byte
	var numbers []int
	var err error
	if werr := c.raw.Read(func(fd uintptr) bool {
		b, numbers, err = c.take(int(fd))
		return err != unix.EAGAIN
	}); werr != nil {
		err = unusable(werr)
	}
	if err != nil {
		await(ctx, c.closeNumbers(numbers))
	}
	if err == io.EOF || errors.Is(err, unix.ECONNRESET) {
		return Message{}, nil, io.EOF
	}
	if err != nil {
		return Message{}, nil, fmt.Errorf("receive: %w", because(ctx, err))
	}
	m, err := Decode(b)
	if err == nil && len(numbers) != files[m.Type] {
		err = fmt.Errorf("%s with %d files: %w", m.Type, len(numbers), ErrProtocol)
	}
	if err != nil {
		await(ctx, c.closeNumbers(numbers))
		return Message{}, nil, err
	}
	got, err := c.ownAll(ctx, numbers)
	if err != nil {
		return Message{}, nil, fmt.Errorf("%s: %w", m.Type, err)
	}
	return m, got, nil
}

// receive takes one datagram without waiting. Whatever files came with it are returned, also on error.
func receive(fd int) ([]byte, []int, error) {
	var size int
	err := retry(func() (err error) {
		size, _, err = unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	// An oversize datagram is still taken, so that its files are not left in the queue.
	b := make([]byte, min(size, MaxMessage))
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	var n, oobn, flags int
	err = retry(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	got, err := parseRights(oob[:oobn])
	switch {
	case err != nil:
	case n == 0 && len(got) == 0 && oobn == 0:
		err = io.EOF
	case flags&unix.MSG_TRUNC != 0 || size > MaxMessage:
		err = fmt.Errorf("message of %d bytes: %w", size, ErrProtocol)
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("more than %d files: %w", maxFiles, ErrProtocol)
	}
	return b[:n], got, err
}

// bound makes an operation end with ctx; the function that it returns must run afterwards.
func (c *Conn) bound(ctx context.Context, set func(time.Time) error) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = set(time.Unix(1, 0)) // a closed socket needs no deadline
	})
	return func() {
		if !stop() {
			<-fired
		}
		_ = set(time.Time{})
	}
}

// unusable names the error of a file that was closed meanwhile, which package os does not do for raw access.
func unusable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

// because replaces the deadline's error by what caused it.
func because(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// CloseAll closes files that nobody wants.
func CloseAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// retry repeats a call that a signal has interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
