package client

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	kernel "github.com/sidemount/sidemount/mount/fuse"
)

// ErrHandshake: go-fuse would agree with the kernel on something else than what was agreed on when the mount was made.
var ErrHandshake = errors.New("client and broker disagree about the FUSE connection")

// MountOptions sets go-fuse up so that its INIT answer is the one that the broker has given for this kind of client.
func MountOptions(kind mount.ClientKind) (*fuse.MountOptions, error) {
	f, err := kernel.FeaturesOf(kind)
	if err != nil {
		return nil, err
	}
	// go-fuse switches some features on by itself; what is not wished for has to be switched off.
	const own = fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH | fuse.CAP_ALLOW_IDMAP
	return &fuse.MountOptions{
		Name:                 string(kind),
		MaxWrite:             int(f.MaxWrite),
		MaxBackground:        int(f.MaxBackground),
		CongestionThreshold:  int(f.CongestionThreshold),
		EnableLocks:          f.Flags&(kernel.PosixLocks|kernel.FlockLocks) != 0,
		EnableSymlinkCaching: f.Flags&kernel.CacheSymlinks != 0,
		// Both clients have what is read in memory. go-fuse would prepare a pipe for each answer first, and then not use it.
		DisableSplice:        true,
		DisabledCapabilities: own &^ uint64(f.Flags),
		ExtraCapabilities:    uint64(f.Flags),
	}, nil
}

// attach makes a go-fuse server of a connection that is mounted and has done INIT already. go-fuse knows no such start: it expects to read INIT first. So it
// is given a socket, from which it reads the kernel's old INIT and into which it writes its answer; before it reads the next request, dup3 puts the
// real connection in the socket's place. go-fuse keeps its file blocking and outside of the poller, so the exchange goes unnoticed.
func attach(fs fuse.RawFileSystem, dev *os.File, init, answer []byte, o *fuse.MountOptions) (*fuse.Server, error) {
	replay, err := kernel.Replay(init, answer)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[1])
	if _, err := unix.Write(pair[1], replay); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("replay INIT: %w", err)
	}
	// go-fuse owns pair[0] from here on, also when it fails.
	server, err := fuse.NewServer(fs, "/dev/fd/"+strconv.Itoa(pair[0]), o)
	if err != nil {
		return nil, fmt.Errorf("replay INIT: %w", err)
	}
	if err := presentBuffers(server); err != nil {
		return nil, err
	}
	given := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(pair[1], given, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("read the answer to INIT: %w", err)
	}
	if !bytes.Equal(given[:n], answer) {
		return nil, disagreement(given[:n], answer)
	}
	if err := unix.Dup3(int(dev.Fd()), pair[0], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("put the connection in place: %w", err)
	}
	return server, nil
}

func disagreement(given, agreed []byte) error {
	g, err := kernel.ParseAnswer(given)
	if err != nil {
		return errors.Join(ErrHandshake, err)
	}
	a, err := kernel.ParseAnswer(agreed)
	if err != nil {
		return errors.Join(ErrHandshake, err)
	}
	return fmt.Errorf("%w: go-fuse answers %+v, the kernel was told %+v", ErrHandshake, g, a)
}

// giveUp answers EINTR to requests that a dead client took, on a kernel that cannot send them again (before Linux 6.9): they would wait for ever. Programs
// meet EINTR after a signal too; Go's runtime and many others repeat the call. The numbers of requests grow by two, and one that is not waiting
// for an answer is refused with ENOENT, so all that may be missing are tried.
func giveUp(dev *os.File, highest uint64) error {
	const before, after = 1 << 20, 1 << 16
	if highest == 0 {
		return nil
	}
	interrupted := -int32(unix.EINTR)
	last := highest&^1 + after
	for unique := last - min(last, before) + 2; unique <= last; unique += 2 {
		var b [16]byte
		order.PutUint32(b[0:], 16)
		order.PutUint32(b[4:], uint32(interrupted))
		order.PutUint64(b[8:], unique)
		if _, err := unix.Write(int(dev.Fd()), b[:]); err != nil && err != unix.ENOENT {
			return fmt.Errorf("answer the requests of a dead client: %w", err)
		}
	}
	return nil
}
