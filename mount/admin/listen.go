package admin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen binds the worker's socket. Its directory is made with mode 0700 if it is missing; the socket has 0660. Only processes
// of the users uids and of this process's own user get through: others are hung up on. A socket that is there already is
// replaced, and the name stays when the listener is closed.
func Listen(path string, uids []uint32) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer dir.Close()
	temporary := "." + filepath.Base(path) + ".new"
	if err := os.Remove(inside(dir, temporary)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen: remove a left-over: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: inside(dir, temporary), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", filepath.Dir(path), err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(inside(dir, temporary), 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), l.Close())
	}
	if err := os.Rename(inside(dir, temporary), inside(dir, filepath.Base(path))); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), l.Close())
	}
	return guard(l, uids), nil
}

// Inherited takes over a listening socket that the parent process left at a file number, guarded as by Listen.
func Inherited(number int, uids []uint32) (net.Listener, error) {
	f := os.NewFile(uintptr(number), "listener")
	defer f.Close() // the listener has a copy of its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("file %d is not a listening socket: %w", number, err)
	}
	local, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("file %d is not a unix socket", number), l.Close())
	}
	local.SetUnlinkOnClose(false)
	return guard(local, uids), nil
}

func guard(l *net.UnixListener, uids []uint32) net.Listener {
	return &guarded{UnixListener: l, uids: append(slices.Clone(uids), uint32(os.Geteuid()))}
}

// guarded accepts certain users only.
type guarded struct {
	*net.UnixListener
	uids []uint32
}

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(conn); err == nil && slices.Contains(g.uids, uid) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// peer is the user at the other end, as the kernel knows it.
func peer(conn syscall.Conn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if outer := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	}); outer != nil {
		return 0, outer
	}
	return uid, err
}

func inside(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}
