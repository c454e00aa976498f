package wire

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Peer is who connected, as the kernel knows it; identities are those of this process's user namespace.
type Peer struct {
	PID      int
	UID, GID uint32
}

// Peer returns who is at the other end.
func (c *Conn) Peer() (Peer, error) {
	var p Peer
	err := control(c.raw, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return err
		}
		p = Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
		return nil
	})
	if err != nil {
		return Peer{}, fmt.Errorf("ask for the peer: %w", err)
	}
	return p, nil
}

// PeerProcess returns a pidfd of the process that connected, which the caller closes. It fails with ENOPROTOOPT before Linux 6.5.
func (c *Conn) PeerProcess() (*os.File, error) {
	var number int
	err := control(c.raw, func(fd int) (err error) {
		number, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the peer's process: %w", err)
	}
	unix.CloseOnExec(number)
	return os.NewFile(uintptr(number), "pidfd"), nil
}
