package passthrough

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// memory is a session that outlives its clients.
type memory struct {
	values map[string][]byte
	region []byte
}

func (m *memory) Get(key string) ([]byte, bool) { v, ok := m.values[key]; return v, ok }
func (m *memory) Put(key string, value []byte) error {
	m.values[key] = bytes.Clone(value)
	return nil
}
func (m *memory) Memory() []byte { return m.region }

func newMemory() *memory { return &memory{map[string][]byte{}, make([]byte, 8<<20)} }

// newClient makes a client of a session. The one before, if there was one, counts as killed.
func newClient(t *testing.T, dir string, m *memory) *FS {
	t.Helper()
	fs, err := New(mount.Volume{Config: map[string]string{"path": dir}}, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fs.root) })
	fs.Init(nil)
	return fs
}

func create(t *testing.T, fs *FS, name string) (node, handle uint64) {
	t.Helper()
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: rootID}, Flags: unix.O_RDWR, Mode: 0o644}
	if s := fs.Create(nil, &in, name, &out); s != fuse.OK {
		t.Fatal(s)
	}
	return out.NodeId, out.Fh
}

// Whatever request is the first to a handle of a client that died, those after it must find it as it was opened.
func TestHandleOfADeadClientIsGoodForEverything(t *testing.T) {
	for name, first := range map[string]func(fs *FS, h fuse.InHeader, fh uint64) fuse.Status{
		"fsync": func(fs *FS, h fuse.InHeader, fh uint64) fuse.Status {
			return fs.Fsync(nil, &fuse.FsyncIn{InHeader: h, Fh: fh})
		},
		"lseek": func(fs *FS, h fuse.InHeader, fh uint64) fuse.Status {
			return fs.Lseek(nil, &fuse.LseekIn{InHeader: h, Fh: fh, Whence: unix.SEEK_DATA}, &fuse.LseekOut{})
		},
		"page of a mapping": func(fs *FS, h fuse.InHeader, fh uint64) fuse.Status {
			_, s := fs.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Size: 4, WriteFlags: fuse.WRITE_CACHE}, []byte("page"))
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, m := t.TempDir(), newMemory()
			before := newClient(t, dir, m)
			node, fh := create(t, before, "file")
			h := fuse.InHeader{NodeId: node}
			if _, s := before.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Flags: unix.O_RDWR}, []byte("text")); s != fuse.OK {
				t.Fatal(s)
			}
			after := newClient(t, dir, m)
			if s := first(after, h, fh); s != fuse.OK {
				t.Fatal(s)
			}
			if _, s := after.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Flags: unix.O_RDWR}, []byte("more")); s != fuse.OK {
				t.Errorf("write: %v", s)
			}
			if _, s := after.Read(nil, &fuse.ReadIn{InHeader: h, Fh: fh, Flags: unix.O_RDWR, Size: 4}, make([]byte, 4)); s != fuse.OK {
				t.Errorf("read: %v", s)
			}
		})
	}
}

// A file with two names is known by one of them. When that one comes to mean another file, a link must not be made to that.
func TestLinkOfAFileWhoseNameHasMovedOn(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	fs := newClient(t, dir, m)
	node, fh := create(t, fs, "one")
	fs.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh}) // an open file is known in any case
	root := fuse.InHeader{NodeId: rootID}
	link := func(name string) fuse.Status {
		return fs.Link(nil, &fuse.LinkIn{InHeader: root, Oldnodeid: node}, name, &fuse.EntryOut{})
	}
	if s := link("two"); s != fuse.OK {
		t.Fatal(s)
	}
	_, _ = create(t, fs, "other")
	// By now the file is known as "two", which somebody else gives to the other file.
	if err := os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	if s := link("three"); s != fuse.Status(unix.ESTALE) {
		t.Errorf("link by a wrong name: %v, want ESTALE", s)
	}
	if _, err := os.Lstat(filepath.Join(dir, "three")); !os.IsNotExist(err) {
		t.Errorf("a link to the wrong file is left: %v", err)
	}
	// The kernel then looks the name up again that its user has given, and repeats.
	if s := fs.Lookup(nil, &root, "one", &fuse.EntryOut{}); s != fuse.OK {
		t.Fatal(s)
	}
	if s := link("three"); s != fuse.OK {
		t.Fatal(s)
	}
	if got := fmt.Sprint(inode(t, dir, "three") == node, inode(t, dir, "two") == node); got != "true false" {
		t.Errorf("three and two are the file: %s", got)
	}
}

func inode(t *testing.T, dir, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestHandleOfAFileThatMayNotBeOpenedAgain: a file may forbid its owner what he does through a handle that he has already.
func TestHandleOfAFileThatMayNotBeOpenedAgain(t *testing.T) {
	for _, mode := range []uint32{0o444, 0} {
		t.Run(fmt.Sprintf("mode %o", mode), func(t *testing.T) {
			withoutOverride(t)
			dir, m := t.TempDir(), newMemory()
			before := newClient(t, dir, m)
			node, fh := create(t, before, "file")
			h := fuse.InHeader{NodeId: node}
			change := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_MODE, Mode: mode}}
			if s := before.SetAttr(nil, &change, &fuse.AttrOut{}); s != fuse.OK {
				t.Fatal(s)
			}
			after := newClient(t, dir, m)
			truncate := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: fh, Size: 10}}
			if s := after.SetAttr(nil, &truncate, &fuse.AttrOut{}); s != fuse.OK {
				t.Errorf("truncate: %v", s)
			}
			if _, s := after.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Flags: unix.O_RDWR}, []byte("more")); s != fuse.OK {
				t.Errorf("write: %v", s)
			}
			if _, s := after.Read(nil, &fuse.ReadIn{InHeader: h, Fh: fh, Flags: unix.O_RDWR, Size: 4}, make([]byte, 4)); s != fuse.OK {
				t.Errorf("read: %v", s)
			}
			if got := modeOf(t, dir, "file"); got != mode {
				t.Errorf("the file has mode %o, want %o", got, mode)
			}
		})
	}
}

func TestNextClientGivesAFileItsModeBack(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	before := newClient(t, dir, m)
	node, _ := create(t, before, "file")
	// The client dies in the middle of reach.
	if err := before.keepMode(node, 0o400); err != nil {
		t.Fatal(err)
	}
	newClient(t, dir, m)
	if got := modeOf(t, dir, "file"); got != 0o400 {
		t.Errorf("the file has mode %o, want 400", got)
	}
	if err := os.Chmod(filepath.Join(dir, "file"), 0o640); err != nil {
		t.Fatal(err)
	}
	newClient(t, dir, m)
	if got := modeOf(t, dir, "file"); got != 0o640 {
		t.Errorf("the file has mode %o, want 640: a mode was given back twice", got)
	}
}

func modeOf(t *testing.T, dir, name string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode & 0o7777
}

// withoutOverride makes the test's thread obey modes, as a sidecar's client has to.
func withoutOverride(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocks it: the thread ends with the test
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
	sets[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := unix.Capset(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
}
