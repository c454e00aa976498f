package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const socketFlags = unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK

// Listener accepts connections on a socket in a directory.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
}

// Listen binds a socket to path, for one user only. A socket that is there already is replaced in one step, so that a peer finds either the old or the new
// one. The path may be longer than a socket address (108 bytes), because the kernel is given its directory as a file.
func Listen(path string, uid, gid int) (l *Listener, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, socketFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("listen: socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	temporary := "." + filepath.Base(path) + ".new"
	if err := unix.Unlinkat(int(dir.Fd()), temporary, 0); err != nil && err != unix.ENOENT {
		return nil, fmt.Errorf("listen: remove a left-over: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: inside(dir, temporary)}); err != nil {
		return nil, fmt.Errorf("listen: bind in %s: %w", dir.Name(), err)
	}
	if err := publish(int(dir.Fd()), fd, temporary, filepath.Base(path), uid, gid); err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &Listener{file: f, raw: raw}, nil
}

// publish gives the socket its owner and, last of all, its name.
func publish(dir, fd int, temporary, name string, uid, gid int) error {
	if err := unix.Fchmodat(dir, temporary, 0o600, 0); err != nil {
		return fmt.Errorf("listen: chmod: %w", err)
	}
	if err := unix.Fchownat(dir, temporary, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("listen: chown: %w", err)
	}
	if err := unix.Listen(fd, 4); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := unix.Renameat(dir, temporary, dir, name); err != nil {
		return fmt.Errorf("listen: rename: %w", err)
	}
	return nil
}

// Close stops accepting. The socket's name stays: the next broker replaces it.
func (l *Listener) Close() error { return l.file.Close() }

// Accept waits for a peer. It returns os.ErrClosed after Close.
func (l *Listener) Accept() (*Conn, error) {
	var fd int
	var err error
	if werr := l.raw.Read(func(listener uintptr) bool {
		err = retry(func() (err error) {
			fd, _, err = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err
		})
		return err != unix.EAGAIN
	}); werr != nil {
		err = unusable(werr)
	}
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return adopt(fd, "peer")
}

// Dial connects to a socket that listens.
func Dial(ctx context.Context, path string) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dial: open %s: %w", filepath.Dir(path), err)
	}
	d := os.NewFile(uintptr(dir), filepath.Dir(path))
	defer d.Close()
	fd, err := unix.Socket(unix.AF_UNIX, socketFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("dial: socket: %w", err)
	}
	// connect(2) on a unix socket does not wait: a full queue is EAGAIN, and the caller comes again.
	if err := retry(func() error {
		return unix.Connect(fd, &unix.SockaddrUnix{Name: inside(d, filepath.Base(path))})
	}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	return adopt(fd, path)
}

// Pair makes a connection to a child process: the second end is given to it as an inherited file and then closed by the caller.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	c, err := adopt(fds[0], "child")
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "parent"), nil
}

// Inherited takes over a socket that the parent process left at a file number.
func Inherited(number int) (*Conn, error) {
	typ, err := unix.GetsockoptInt(number, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("file %d is not the agent's socket: %w", number, errors.Join(ErrProtocol, err))
	}
	unix.CloseOnExec(number)
	if err := unix.SetNonblock(number, true); err != nil {
		return nil, fmt.Errorf("file %d: %w", number, err)
	}
	return adopt(number, "agent")
}

// adopt owns fd from here on.
func adopt(fd int, name string) (*Conn, error) {
	f := os.NewFile(uintptr(fd), name)
	c, err := NewConn(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

func inside(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}
