package passthrough

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fakeBroker is a session's memory with a broker behind it that outlives clients too.
type fakeBroker struct {
	*memory
	away  bool
	next  int32
	held  map[int32]uint64 // what the kernel holds: the file's inode by number
	asked int
}

func newFakeBroker() *fakeBroker { return &fakeBroker{memory: newMemory(), held: map[int32]uint64{}} }

func (b *fakeBroker) CanBack() bool { return true }

func (b *fakeBroker) Back(f *os.File) (int32, error) {
	b.asked++
	if b.away {
		return 0, errors.New("away")
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || flags&unix.O_APPEND != 0 {
		return 0, fmt.Errorf("flags %x, %w", flags, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	b.next++
	b.held[b.next] = st.Ino
	return b.next, nil
}

func (b *fakeBroker) Unback(number int32) { delete(b.held, number) }

func (b *fakeBroker) Known(numbers []int32) error {
	known := map[int32]uint64{}
	for _, n := range numbers {
		known[n] = b.held[n]
	}
	b.held = known
	return nil
}

func backed(t *testing.T, dir string, b *fakeBroker) *FS {
	t.Helper()
	fs := newClient(t, dir, b.memory)
	fs.keep = b
	fs.backings.init(b, fs.table)
	return fs
}

func open(t *testing.T, fs *FS, node uint64, flags uint32) fuse.OpenOut {
	t.Helper()
	var out fuse.OpenOut
	if s := fs.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: flags}, &out); s != fuse.OK {
		t.Fatal(s)
	}
	return out
}

func release(fs *FS, node, fh uint64) {
	fs.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh})
}

func wantBacking(t *testing.T, what string, out fuse.OpenOut, number int32) {
	t.Helper()
	if passes := out.OpenFlags&fuse.FOPEN_PASSTHROUGH != 0; out.BackingID != number || passes != (number > 0) {
		t.Errorf("%s: backing file %d, flags %x; want %d", what, out.BackingID, out.OpenFlags, number)
	}
}

// The kernel does not mix: while a node is open, all its handles are of one kind, and have one number.
func TestHandlesOfANodeAreOfOneKind(t *testing.T) {
	b := newFakeBroker()
	fs := backed(t, t.TempDir(), b)
	node, fh := create(t, fs, "file")
	first := open(t, fs, node, unix.O_RDONLY)
	wantBacking(t, "a second handle", first, 1)
	release(fs, node, fh)
	wantBacking(t, "one after the first has gone", open(t, fs, node, unix.O_WRONLY|unix.O_APPEND), 1)
	b.away = true
	other, fh := create(t, fs, "other")
	b.away = false
	wantBacking(t, "a handle of a file that was opened without a broker", open(t, fs, other, unix.O_RDWR), 0)
	release(fs, other, fh)
	wantBacking(t, "one more", open(t, fs, other, unix.O_RDWR), 0)
}

func TestNumberEndsWithTheLastHandle(t *testing.T) {
	b := newFakeBroker()
	fs := backed(t, t.TempDir(), b)
	node, fh := create(t, fs, "file")
	second := open(t, fs, node, unix.O_RDWR)
	release(fs, node, fh)
	if len(b.held) != 1 {
		t.Fatalf("held %v while a handle is open", b.held)
	}
	release(fs, node, second.Fh)
	if len(b.held) != 0 {
		t.Fatalf("held %v", b.held)
	}
	wantBacking(t, "the next handle", open(t, fs, node, unix.O_RDWR), 2)
}

func TestNextClientGoesOnWithTheNumber(t *testing.T) {
	b, dir := newFakeBroker(), t.TempDir()
	before := backed(t, dir, b)
	node, fh := create(t, before, "file")
	// The client died between a registration and its note of it.
	b.held[99] = 7
	after := backed(t, dir, b)
	if len(b.held) != 1 {
		t.Errorf("held %v, want what is noted", b.held)
	}
	wantBacking(t, "a handle", open(t, after, node, unix.O_RDWR), 1)
	// Its own handle and the dead client's, and one that is counted although the dead client did not answer.
	before.table.open(node, 1)
	after = backed(t, dir, b)
	for range 2 {
		release(after, node, fh)
	}
	wantBacking(t, "a handle that is counted too often", open(t, after, node, unix.O_RDWR), 1)
	release(after, node, fh)
	after.Forget(node, 1)
	if len(b.held) != 0 {
		t.Errorf("held %v of a node that the kernel has forgotten", b.held)
	}
}

func TestSmallFilesAreNotAskedFor(t *testing.T) {
	b := newFakeBroker()
	fs := backed(t, t.TempDir(), b)
	for i := range always {
		node, fh := create(t, fs, fmt.Sprint("small-", i))
		release(fs, node, fh)
	}
	b.asked = 0
	node, fh := create(t, fs, "after small ones")
	if b.asked != 0 {
		t.Error("asked for a new file after a series of small ones")
	}
	h := fuse.InHeader{NodeId: node}
	if _, s := fs.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Flags: unix.O_RDWR}, make([]byte, small)); s != fuse.OK {
		t.Fatal(s)
	}
	release(fs, node, fh)
	large, _ := create(t, fs, "after a large one")
	if b.asked != 1 || fs.table.backing(large) != b.next {
		t.Errorf("asked %d times for a new file after one that was large", b.asked)
	}
	read := open(t, fs, node, unix.O_RDONLY)
	wantBacking(t, "a large file that is read", read, b.next)
	node, fh = create(t, fs, "read")
	release(fs, node, fh)
	wantBacking(t, "a small file that is read", open(t, fs, node, unix.O_RDONLY), 0)
}

func TestProgramsAreNotAskedFor(t *testing.T) {
	b := newFakeBroker()
	fs := backed(t, t.TempDir(), b)
	node, fh := create(t, fs, "program")
	h := fuse.InHeader{NodeId: node}
	change := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_MODE | fuse.FATTR_SIZE, Mode: 0o755, Size: 2 * small}}
	if s := fs.SetAttr(nil, &change, &fuse.AttrOut{}); s != fuse.OK {
		t.Fatal(s)
	}
	release(fs, node, fh)
	wantBacking(t, "a program that is read", open(t, fs, node, unix.O_RDONLY), 0)
}
