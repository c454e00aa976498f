// Package fusetest is a FUSE file system with one file, for tests of code that is handed files of somebody else's volume. It is no client: it stores nothing, and it
// leaves requests unanswered if a test wants it to.
package fusetest

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse"
)

// Opcode is the kind of a request, as <linux/fuse.h> numbers it.
type Opcode uint32

// The requests that a test may count or leave unanswered.
const (
	GetAttr Opcode = 3
	StatFS  Opcode = 17
	Flush   Opcode = 25
	Poll    Opcode = 40
)

const (
	lookup      Opcode = 1
	forget      Opcode = 2
	open        Opcode = 14
	release     Opcode = 18
	interrupt   Opcode = 36
	batchForget Opcode = 42
)

const (
	rootNode, fileNode = 1, 2
	inHeader           = 40
	outHeader          = 16
	// Request is the size of a buffer for any request that comes to a connection whose writes are not larger than 128 KiB.
	Request = 256 << 10
)

// FS is a mount that no mount table shows.
type FS struct {
	dev      *os.File
	tree     int
	withheld []Opcode
	stop     chan struct{}
	stopped  chan struct{}

	mu    sync.Mutex // guards what follows
	asked map[Opcode]int
}

// New mounts the file system. It answers everything but withheld, and ends with the test, which then finds whoever still waits for it freed. The test is skipped where
// nothing can be mounted.
func New(t testing.TB, withheld ...Opcode) *FS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: a FUSE mount needs root")
	}
	dev, err := fuse.OpenDevice()
	if err != nil {
		t.Skip("skipped: ", err)
	}
	f := &FS{dev: dev, withheld: withheld, stop: make(chan struct{}), stopped: make(chan struct{}), asked: map[Opcode]int{}}
	if f.tree, err = attach(dev); err != nil {
		dev.Close()
		t.Fatal(err)
	}
	if err := f.initialize(t); err != nil {
		unix.Close(f.tree)
		dev.Close()
		t.Fatal(err)
	}
	go f.serve()
	t.Cleanup(f.close)
	return f
}

// attach makes the superblock and a detached mount of it.
func attach(dev *os.File) (int, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, p := range [][2]string{{"source", "fusetest"}, {"fd", strconv.Itoa(int(dev.Fd()))}, {"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"}} {
		if err := unix.FsconfigSetString(fs, p[0], p[1]); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

func (f *FS) initialize(t testing.TB) error {
	b, err := fuse.ReadInit(t.Context(), f.dev)
	if err != nil {
		return err
	}
	in, err := fuse.ParseInit(b)
	if err != nil {
		return err
	}
	return fuse.WriteAnswer(f.dev, fuse.Answer{Unique: in.Unique, Minor: in.Minor, MaxWrite: 4096, MaxBackground: 8}.Marshal())
}

// Open opens the file and returns its number, which is the caller's to close.
func (f *FS) Open(flags int) (int, error) {
	return unix.Openat(f.tree, "file", flags|unix.O_CLOEXEC, 0)
}

// Asked counts the requests of a kind that have come.
func (f *FS) Asked(op Opcode) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[op]
}

// close ends the connection: what was left unanswered is answered with ECONNABORTED.
func (f *FS) close() {
	close(f.stop)
	<-f.stopped
	f.dev.Close()
	unix.Close(f.tree)
}

// serve polls in slices, so that it can be stopped while it holds the device.
func (f *FS) serve() {
	defer close(f.stopped)
	b := make([]byte, Request)
	p := []unix.PollFd{{Fd: int32(f.dev.Fd()), Events: unix.POLLIN}}
	for {
		select {
		case <-f.stop:
			return
		default:
		}
		if n, err := unix.Poll(p, 20); n == 0 || err != nil {
			continue
		}
		n, err := unix.Read(int(p[0].Fd), b)
		if err == unix.ENODEV {
			return
		}
		if err != nil || n < inHeader {
			continue
		}
		f.handle(b[:n])
	}
}

func (f *FS) handle(b []byte) {
	op := Opcode(binary.NativeEndian.Uint32(b[4:]))
	f.mu.Lock()
	f.asked[op]++
	f.mu.Unlock()
	if !slices.Contains(f.withheld, op) {
		Answer(f.dev, b)
	}
}

// Answer answers a request that was read from a device as this file system does.
func Answer(dev *os.File, b []byte) {
	op := Opcode(binary.NativeEndian.Uint32(b[4:]))
	if op == forget || op == batchForget || op == interrupt {
		return
	}
	answer, status := reply(op, binary.NativeEndian.Uint64(b[16:]))
	out := make([]byte, outHeader, outHeader+len(answer))
	binary.NativeEndian.PutUint32(out, uint32(outHeader+len(answer)))
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(status)))
	copy(out[8:], b[8:16])
	_, _ = unix.Write(int(dev.Fd()), append(out, answer...)) // a request may have been given up
}

// reply is the answer to a request about a node, or its error.
func reply(op Opcode, node uint64) ([]byte, unix.Errno) {
	switch op {
	case lookup: // struct fuse_entry_out
		return append(binary.NativeEndian.AppendUint64(nil, fileNode), append(make([]byte, 32), attributes(fileNode)...)...), 0
	case GetAttr: // struct fuse_attr_out
		return append(make([]byte, 16), attributes(node)...), 0
	case open: // struct fuse_open_out
		return make([]byte, 16), 0
	case StatFS: // struct fuse_statfs_out
		return make([]byte, 80), 0
	case release, Flush:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

// attributes are a node's struct fuse_attr.
func attributes(node uint64) []byte {
	mode := uint32(unix.S_IFREG | 0o666)
	if node == rootNode {
		mode = unix.S_IFDIR | 0o777
	}
	b := make([]byte, 88)
	binary.NativeEndian.PutUint64(b, node)
	binary.NativeEndian.PutUint32(b[60:], mode)
	binary.NativeEndian.PutUint32(b[64:], 1) // links
	return b
}
