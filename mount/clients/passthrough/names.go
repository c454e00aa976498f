package passthrough

import (
	"errors"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// make runs a call that makes a name, and answers with what it made.
func (f *FS) make(parent uint64, name string, out *fuse.EntryOut, call func(dir int) error) fuse.Status {
	f.removal.RLock()
	defer f.removal.RUnlock()
	return f.makeHeld(parent, name, out, call)
}

// makeHeld is make for callers that hold removal.
func (f *FS) makeHeld(parent uint64, name string, out *fuse.EntryOut, call func(dir int) error) fuse.Status {
	if f.hidden.hides(parent, name) {
		return fuse.EPERM
	}
	var answer fuse.Status
	if s := f.in(parent, func(dir int) error {
		if err := call(dir); err != nil {
			return err
		}
		answer = f.entry(dir, parent, name, out)
		return nil
	}); s != fuse.OK {
		return s
	}
	return answer
}

func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return f.make(h.NodeId, name, out, func(int) error { return nil })
}

// Forget also removes a hidden file that nobody can reach any more, and a backing file whose handles were counted wrong after a crash.
func (f *FS) Forget(node, lookups uint64) {
	if was, gone := f.table.forget(node, lookups); gone {
		f.gone.forget(node)
		f.hidden.forget(was.parent, was.name)
		f.unback(was.backing)
	}
}

func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.make(in.NodeId, name, out, func(dir int) error { return unix.Mknodat(dir, name, in.Mode, int(in.Rdev)) })
}

func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.make(in.NodeId, name, out, func(dir int) error { return unix.Mkdirat(dir, name, in.Mode&0o7777) })
}

func (f *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return f.make(h.NodeId, name, out, func(dir int) error { return unix.Symlinkat(to, dir, name) })
}

// Link links by path, because linking an open place needs CAP_DAC_READ_SEARCH.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	f.removal.RLock()
	defer f.removal.RUnlock()
	parent, old, ok := f.table.at(in.Oldnodeid)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	from, err := f.find(parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	defer from.Close()
	s := f.makeHeld(in.NodeId, name, out, func(dir int) error {
		// A file with several names is known by one, which may belong to another file by now. The kernel looks names up again when it hears of that.
		if f.known(int(from.Fd()), old) != in.Oldnodeid {
			return unix.ESTALE
		}
		return unix.Linkat(int(from.Fd()), old, dir, name, 0)
	})
	if s == fuse.OK && out.NodeId != in.Oldnodeid {
		// Somebody else has used the name in between. The wrong link must not stay, or the kernel would find its name taken.
		f.Forget(out.NodeId, 1)
		return f.in(in.NodeId, func(dir int) error { return errors.Join(unix.Unlinkat(dir, name, 0), unix.ESTALE) })
	}
	return s
}

func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if f.hidden.hides(h.NodeId, name) {
		return fuse.ENOENT
	}
	f.removal.Lock()
	defer f.removal.Unlock()
	return f.in(h.NodeId, func(dir int) error {
		if err := f.hidden.save(dir, h.NodeId, name); err != nil {
			return err
		}
		f.gone.keep(f, dir, name)
		return unix.Unlinkat(dir, name, 0)
	})
}

func (f *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if f.hidden.hides(h.NodeId, name) {
		return fuse.EPERM
	}
	f.removal.RLock()
	defer f.removal.RUnlock()
	return f.in(h.NodeId, func(dir int) error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if f.hidden.hides(in.NodeId, from) || f.hidden.hides(in.Newdir, to) {
		return fuse.EPERM
	}
	target, err := f.open(in.Newdir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	defer target.Close()
	f.removal.Lock()
	defer f.removal.Unlock()
	return f.in(in.NodeId, func(dir int) error { return f.rename(dir, int(target.Fd()), in, from, to) })
}

// rename keeps what is replaced, and notes the new names before there are any: the next client finds out which of the two it came to.
func (f *FS) rename(dir, newDir int, in *fuse.RenameIn, from, to string) error {
	source, target := f.known(dir, from), f.known(newDir, to)
	moves := []move{{node: source, parent: in.Newdir, name: to}}
	switch {
	case source == 0 || source == target:
		// This fails, as when it is executed again, or changes nothing; there is nothing to keep.
		moves = nil
	case in.Flags&unix.RENAME_EXCHANGE != 0:
		moves = append(moves, move{node: target, parent: in.NodeId, name: from})
	case in.Flags&unix.RENAME_NOREPLACE == 0:
		if err := f.hidden.save(newDir, in.Newdir, to); err != nil {
			return err
		}
		f.gone.keep(f, newDir, to)
	}
	if err := f.table.prepare(moves); err != nil {
		return err
	}
	if err := unix.Renameat2(dir, from, newDir, to, uint(in.Flags)); err != nil {
		f.table.drop(moves)
		return err
	}
	f.table.commit(moves)
	return nil
}

// known returns the node at a name, 0 if there is none.
func (f *FS) known(dir int, name string) uint64 {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0
	}
	return f.nodeID(st.Ino)
}

// isAt tells whether a node is the one at a name.
func (f *FS) isAt(node, parent uint64, name string) bool {
	dir, err := f.find(parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer dir.Close()
	return f.known(int(dir.Fd()), name) == node
}

func (f *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	link, err := f.path(h.NodeId)
	if err != nil {
		return nil, status(err)
	}
	defer link.Close()
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(link.Fd()), "", b)
	if err != nil {
		return nil, status(err)
	}
	return b[:n], fuse.OK
}

// procPath names an open place for calls that know no other way.
func procPath(place *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(place.Fd())) }
