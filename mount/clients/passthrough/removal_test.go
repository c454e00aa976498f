package passthrough

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func lookUp(t *testing.T, fs *FS, name string) uint64 {
	t.Helper()
	var out fuse.EntryOut
	if s := fs.Lookup(nil, &fuse.InHeader{NodeId: rootID}, name, &out); s != fuse.OK {
		t.Fatal(s)
	}
	return out.NodeId
}

func replace(from, to string) func(fs *FS) fuse.Status {
	return func(fs *FS) fuse.Status {
		return fs.Rename(nil, &fuse.RenameIn{InHeader: fuse.InHeader{NodeId: rootID}, Newdir: rootID}, from, to)
	}
}

func wantLinks(t *testing.T, fs *FS, node uint64, links uint32) {
	t.Helper()
	var out fuse.AttrOut
	if s := fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node}}, &out); s != fuse.OK {
		t.Errorf("attributes: %v", s)
		return
	}
	if out.Ino != node || out.Nlink != links {
		t.Errorf("node %d has %d links, want %d and %d", out.Ino, out.Nlink, node, links)
	}
}

// What somebody has looked up he may open after its name has gone, and what he has then opened must outlive the client.
func TestFileThatIsOpenedAfterItsNameHasGone(t *testing.T) {
	for name, remove := range map[string]func(fs *FS) fuse.Status{
		"unlink": func(fs *FS) fuse.Status { return fs.Unlink(nil, &fuse.InHeader{NodeId: rootID}, "file") },
		"rename": replace("other", "file"),
	} {
		t.Run(name, func(t *testing.T) {
			dir, m := t.TempDir(), newMemory()
			for _, name := range []string{"file", "other"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := newClient(t, dir, m)
			lookUp(t, before, "other")
			node := lookUp(t, before, "file")
			if s := remove(before); s != fuse.OK {
				t.Fatal(s)
			}
			var out fuse.OpenOut
			h := fuse.InHeader{NodeId: node}
			if s := before.Open(nil, &fuse.OpenIn{InHeader: h}, &out); s != fuse.OK {
				t.Fatal(s)
			}
			after := newClient(t, dir, m)
			wantLinks(t, after, node, 0)
			r, s := after.Read(nil, &fuse.ReadIn{InHeader: h, Fh: out.Fh, Size: 4}, make([]byte, 4))
			if s != fuse.OK {
				t.Fatal(s)
			}
			if b, _ := r.Bytes(nil); string(b) != "file" {
				t.Errorf("read %q", b)
			}
			after.Release(nil, &fuse.ReleaseIn{InHeader: h, Fh: out.Fh})
			after.Forget(node, 1)
			wantHidden(t, dir, 0)
		})
	}
}

func wantHidden(t *testing.T, dir string, want int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, hiddenName, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != want {
		t.Errorf("hidden files: %v, want %d", found, want)
	}
}

// A file is known to the next client whichever step of a rename the one before has died at.
func TestClientDiesInARename(t *testing.T) {
	steps := []string{"saved", "prepared", "renamed", "committed"}
	for _, exchange := range []bool{false, true} {
		for last, step := range steps {
			name := step
			if exchange {
				name += " exchange"
			}
			t.Run(name, func(t *testing.T) { dieInRename(t, exchange, last) })
		}
	}
}

func dieInRename(t *testing.T, exchange bool, last int) {
	dir, m := t.TempDir(), newMemory()
	before := newClient(t, dir, m)
	from, _ := create(t, before, "from")
	to, _ := create(t, before, "to")
	in := fuse.RenameIn{InHeader: fuse.InHeader{NodeId: rootID}, Newdir: rootID}
	moves := []move{{node: from, parent: rootID, name: "to"}}
	links := uint32(0)
	if exchange {
		in.Flags, links = unix.RENAME_EXCHANGE, 1
		moves = append(moves, move{node: to, parent: rootID, name: "from"})
	}
	for i, step := range []func() error{
		func() error {
			if exchange {
				return nil
			}
			return before.hidden.save(before.root, rootID, "to")
		},
		func() error { return before.table.prepare(moves) },
		func() error { return unix.Renameat2(before.root, "from", before.root, "to", uint(in.Flags)) },
		func() error { before.table.commit(moves); return nil },
	} {
		if i > last {
			break
		}
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	renamed := last >= 2
	after := newClient(t, dir, m)
	wantLinks(t, after, from, 1)
	if renamed || exchange {
		wantLinks(t, after, to, links)
	} else {
		wantLinks(t, after, to, 1)
	}
	again := after.Rename(nil, &in, "from", "to")
	switch {
	case renamed && !exchange:
		if again != fuse.ENOENT {
			t.Errorf("a second rename: %v", again)
		}
	case again != fuse.OK:
		t.Errorf("a second rename: %v", again)
	}
	third := newClient(t, dir, m)
	wantLinks(t, third, from, 1)
	wantLinks(t, third, to, links)
	third.Forget(from, 1)
	third.Forget(to, 1)
	wantHidden(t, dir, 0)
}

// A file with several names needs no hidden one while another is known, and is not counted wrong when it has one.
func TestFileWithTwoNames(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	fs := newClient(t, dir, m)
	node, _ := create(t, fs, "one")
	root := fuse.InHeader{NodeId: rootID}
	if s := fs.Link(nil, &fuse.LinkIn{InHeader: root, Oldnodeid: node}, "two", &fuse.EntryOut{}); s != fuse.OK {
		t.Fatal(s)
	}
	if s := fs.Link(nil, &fuse.LinkIn{InHeader: root, Oldnodeid: node}, "three", &fuse.EntryOut{}); s != fuse.OK {
		t.Fatal(s)
	}
	remove := func(name string) {
		t.Helper()
		if s := fs.Unlink(nil, &root, name); s != fuse.OK {
			t.Fatal(s)
		}
	}
	remove("one")
	wantHidden(t, dir, 0)
	remove("three") // by which it is known
	wantHidden(t, dir, 1)
	wantLinks(t, fs, node, 1)
	var found fuse.EntryOut
	if s := fs.Lookup(nil, &root, "two", &found); s != fuse.OK || found.Nlink != 1 {
		t.Errorf("a lookup tells of %d links, %v", found.Nlink, s)
	}
	wantLinks(t, newClient(t, dir, m), node, 1)
	remove("two")
	wantLinks(t, fs, node, 0)
	fs.Forget(node, 4)
	wantHidden(t, dir, 0)
}

// Nobody's file is stale because its name is being changed while its attributes are asked for.
func TestAttributesDuringRenames(t *testing.T) {
	dir := t.TempDir()
	fs := newClient(t, dir, newMemory())
	node, _ := create(t, fs, "a")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			if s := replace("a", "b")(fs); s != fuse.OK {
				t.Error(s)
			}
			if s := replace("b", "a")(fs); s != fuse.OK {
				t.Error(s)
			}
		}
	}()
	stale := 0
	for asked := 0; ; asked++ {
		select {
		case <-done:
			if stale > 0 {
				t.Errorf("%d of %d answers are wrong", stale, asked)
			}
			return
		default:
		}
		if s := fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node}}, &fuse.AttrOut{}); s != fuse.OK {
			stale++
		}
	}
}

// knowing is a kernel that knows some nodes.
type knowing map[uint64]bool

func (k knowing) InodeNotify(node uint64, _, _ int64) fuse.Status {
	if k[node] {
		return fuse.OK
	}
	return fuse.ENOENT
}

// A FORGET that a killed client has taken does not keep its file for ever.
func TestHiddenFileWhoseForgetIsLost(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	before := newClient(t, dir, m)
	root := fuse.InHeader{NodeId: rootID}
	known, _ := create(t, before, "known")
	_, _ = create(t, before, "lost")
	twice, _ := create(t, before, "twice")
	if s := before.Link(nil, &fuse.LinkIn{InHeader: root, Oldnodeid: twice}, "other", &fuse.EntryOut{}); s != fuse.OK {
		t.Fatal(s)
	}
	for _, name := range []string{"known", "lost", "other"} {
		if s := before.Unlink(nil, &root, name); s != fuse.OK {
			t.Fatal(s)
		}
	}
	wantHidden(t, dir, 3)
	if err := os.WriteFile(filepath.Join(dir, before.hidden.dir.Name(), "999999999999"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	after := newClient(t, dir, m)
	wantHidden(t, dir, 3)
	after.removeLeftovers(knowing{known: true}, after.table.saved())
	wantHidden(t, dir, 2)
	wantLinks(t, after, known, 0)
	wantLinks(t, after, twice, 1) // it can be looked up at any moment
}
