package wire

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A child of this process closes every file of it inside execve(2). With a file of FUSE among them it waits there for the answer to FLUSH, for ever if the server likes, and
// this process waits for the child: clone(2) was told to, and Go does not even stop for its garbage while it does. So a file of a tenant's own file system must never be
// in the table of this process's files when a child is made.

// Expel has regular files of some file systems replaced as they arrive, before a child of this process can be made, by files that are good for nothing. of is asked with
// the device numbers of a file's file system (statx(2)); it must not block. It is called before the first Receive.
func (c *Conn) Expel(of func(major, minor uint32) bool) { c.unwanted = of }

// expulsion is how long a file may take to leave the table. It does so as soon as a thread has begun to close it.
const expulsion = time.Second

// take receives a datagram, and lets no child be made between its arrival and the expulsion of files that no child must have.
func (c *Conn) take(socket int) ([]byte, []int, error) {
	if c.unwanted == nil {
		return receive(socket)
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	b, numbers, err := receive(socket)
	for _, number := range numbers {
		if at, is := c.isUnwanted(number); is && !c.expel(socket, number, at) && err == nil {
			err = fmt.Errorf("a file of a FUSE file system that does not go: %w", ErrProtocol)
		}
	}
	return b, numbers, err
}

// location tells a file from any other.
type location struct {
	major, minor uint32
	inode        uint64
}

// locate asks no file system: it tells the file's type and where it is.
func locate(number int) (mode uint16, at location, err error) {
	var st unix.Statx_t
	err = retry(func() error {
		return unix.Statx(number, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &st)
	})
	return st.Mode, location{st.Dev_major, st.Dev_minor, st.Ino}, err
}

func (c *Conn) isUnwanted(number int) (at location, is bool) {
	mode, at, err := locate(number)
	return at, err == nil && mode&unix.S_IFMT == unix.S_IFREG && c.unwanted(at.major, at.minor)
}

// expel puts another file in the place of one and tells whether that is done. It takes a thread, which may then have to wait for the file's server.
func (c *Conn) expel(socket, number int, at location) bool {
	other, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		other = socket // the table is full; what takes the place is of no consequence
	}
	c.closing.Go(func() {
		_ = retry(func() error { return unix.Dup3(other, number, unix.O_CLOEXEC) })
		if other != socket {
			unix.Close(other)
		}
	})
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	late := time.NewTimer(expulsion)
	defer late.Stop()
	for {
		if _, now, err := locate(number); err != nil || now != at {
			return err == nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return false
		}
	}
}
