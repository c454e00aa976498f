package client

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// once decorates a file system so that a request which changes names is executed once, although the kernel sends it again after the death of the client
// that took it:
//
//   - Its result is in the journal: it is the answer, and nothing is executed.
//   - It was begun, and the result is unknown: it is executed again, and a result that can only come from the first execution (EEXIST of a create, ENOENT of
//     an unlink) counts as success.
//   - It was never begun: it is executed like any other.
//
// Everything else is idempotent: the kernel keeps other changes of the same inode away until a WRITE or SETATTR has been answered.
type once struct {
	fuse.RawFileSystem
	journal *journal
	gate    gate
	// highest is the highest request number seen, where the kernel cannot send requests again; else nil.
	highest *atomic.Uint64
	// resends counts requests that came once more.
	resends atomic.Uint64
}

var _ fuse.RawFileSystem = (*once)(nil)

// change runs a request that must not be executed twice. again answers one that has succeeded before; done says which result of a second execution
// proves that there was a first.
func (o *once) change(h *fuse.InHeader, done fuse.Status, run, again func() fuse.Status) fuse.Status {
	o.enter(h)
	defer o.gate.leave()
	f := o.journal.fate(h.Unique)
	if f.state == fateDone && f.status == fuse.OK {
		return again()
	}
	if f.state == fateDone {
		return f.status
	}
	e := o.journal.begin(h.Unique, 0)
	status := run()
	if f.state == fateBegun && status == done {
		status = again()
	}
	o.journal.done(e, status)
	return status
}

func (o *once) enter(h *fuse.InHeader) {
	o.gate.enter()
	o.see(h)
}

func (o *once) see(h *fuse.InHeader) {
	if h.Unique&resent != 0 {
		o.resends.Add(1)
	}
	if o.highest != nil {
		raise(o.highest, h.Unique)
	}
}

func succeed() fuse.Status { return fuse.OK }

// find answers a request that has made a name by looking the name up.
func (o *once) find(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) func() fuse.Status {
	return func() fuse.Status { return o.RawFileSystem.Lookup(cancel, h, name, out) }
}

func (o *once) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return o.change(&in.InHeader, fuse.Status(unix.EEXIST),
		func() fuse.Status { return o.RawFileSystem.Mknod(cancel, in, name, out) }, o.find(cancel, &in.InHeader, name, out))
}

func (o *once) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return o.change(&in.InHeader, fuse.Status(unix.EEXIST),
		func() fuse.Status { return o.RawFileSystem.Mkdir(cancel, in, name, out) }, o.find(cancel, &in.InHeader, name, out))
}

func (o *once) Symlink(cancel <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return o.change(h, fuse.Status(unix.EEXIST),
		func() fuse.Status { return o.RawFileSystem.Symlink(cancel, h, to, name, out) }, o.find(cancel, h, name, out))
}

func (o *once) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return o.change(&in.InHeader, fuse.Status(unix.EEXIST),
		func() fuse.Status { return o.RawFileSystem.Link(cancel, in, name, out) }, o.find(cancel, &in.InHeader, name, out))
}

func (o *once) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return o.change(h, fuse.ENOENT, func() fuse.Status { return o.RawFileSystem.Unlink(cancel, h, name) }, succeed)
}

func (o *once) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return o.change(h, fuse.ENOENT, func() fuse.Status { return o.RawFileSystem.Rmdir(cancel, h, name) }, succeed)
}

func (o *once) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	return o.change(&in.InHeader, fuse.Status(unix.EEXIST), func() fuse.Status { return o.RawFileSystem.SetXAttr(cancel, in, name, data) }, succeed)
}

func (o *once) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return o.change(h, fuse.ENODATA, func() fuse.Status { return o.RawFileSystem.RemoveXAttr(cancel, h, name) }, succeed)
}

// Create that is sent again opens what the first execution has made.
func (o *once) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	again := func() fuse.Status {
		if status := o.RawFileSystem.Lookup(cancel, &in.InHeader, name, &out.EntryOut); status != fuse.OK {
			return status
		}
		open := fuse.OpenIn{InHeader: in.InHeader, Flags: in.Flags &^ (unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC)}
		open.NodeId = out.NodeId
		status := o.RawFileSystem.Open(cancel, &open, &out.OpenOut)
		if status != fuse.OK {
			o.RawFileSystem.Forget(out.NodeId, 1)
		}
		return status
	}
	return o.change(&in.InHeader, fuse.Status(unix.EEXIST),
		func() fuse.Status { return o.RawFileSystem.Create(cancel, in, name, out) }, again)
}

func (o *once) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&unix.RENAME_EXCHANGE != 0 {
		return o.exchange(cancel, in, from, to)
	}
	return o.change(&in.InHeader, fuse.ENOENT, func() fuse.Status { return o.RawFileSystem.Rename(cancel, in, from, to) }, o.renamed(cancel, in, to))
}

// renamed tells a rename that has happened from a source that was never there: the target exists.
func (o *once) renamed(cancel <-chan struct{}, in *fuse.RenameIn, to string) func() fuse.Status {
	return func() fuse.Status {
		target := in.InHeader
		target.NodeId = in.Newdir
		_, status := o.nodeOf(cancel, &target, to)
		return status
	}
}

// exchange would undo itself if it were executed twice, and it always succeeds. So the journal keeps which node the first name had before.
func (o *once) exchange(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	f := o.journal.fate(in.Unique)
	if f.state == fateDone {
		return f.status
	}
	node, status := o.nodeOf(cancel, &in.InHeader, from)
	if status != fuse.OK {
		return status
	}
	if f.state == fateBegun && f.node != node {
		return fuse.OK
	}
	e := o.journal.begin(in.Unique, node)
	status = o.RawFileSystem.Rename(cancel, in, from, to)
	o.journal.done(e, status)
	return status
}

// nodeOf looks a name up without keeping a reference to it.
func (o *once) nodeOf(cancel <-chan struct{}, h *fuse.InHeader, name string) (uint64, fuse.Status) {
	var out fuse.EntryOut
	if status := o.RawFileSystem.Lookup(cancel, h, name, &out); status != fuse.OK {
		return 0, status
	}
	if out.NodeId == 0 {
		return 0, fuse.ENOENT
	}
	o.RawFileSystem.Forget(out.NodeId, 1)
	return out.NodeId, fuse.OK
}
