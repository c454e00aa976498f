package filesystem

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/vfs"
)

// specialTimeout is how long the kernel may keep what it knows of JuiceFS's pseudo files.
const specialTimeout = time.Hour

// preferredIO is what stat reports as block size; tools read and write in such pieces.
const preferredIO = 64 << 10

// putAttr fills an answer's attributes and returns how long they hold. Attributes that were read before a write of the same file
// are read again, or the kernel would see the file shrink.
func (fs *FileSystem) putAttr(ctx *request, e *meta.Entry, out *fuse.Attr) time.Duration {
	timeout := fs.vfs.Conf.AttrTimeout
	switch {
	case vfs.IsSpecialNode(e.Inode):
		timeout = specialTimeout
	case e.Attr.Typ == meta.TypeFile && fs.vfs.ModifiedSince(e.Inode, ctx.begin):
		var fresh meta.Attr
		if fs.meta.GetAttr(ctx, e.Inode, &fresh) == 0 {
			*e.Attr = fresh
		} else {
			timeout = 0
		}
	}
	fs.vfs.UpdateLength(e.Inode, e.Attr)
	stat(e.Inode, e.Attr, out)
	return timeout
}

// stat turns JuiceFS's attributes into the kernel's.
func stat(inode Ino, a *meta.Attr, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: uint64(inode), Mode: a.SMode(), Nlink: a.Nlink, Owner: fuse.Owner{Uid: a.Uid, Gid: a.Gid},
		Atime: uint64(a.Atime), Atimensec: a.Atimensec,
		Mtime: uint64(a.Mtime), Mtimensec: a.Mtimensec,
		Ctime: uint64(a.Ctime), Ctimensec: a.Ctimensec,
		Blksize: preferredIO,
	}
	switch a.Typ {
	case meta.TypeDirectory, meta.TypeSymlink, meta.TypeFile:
		out.Size = a.Length
		out.Blocks = (a.Length + 511) / 512
	case meta.TypeBlockDev, meta.TypeCharDev:
		out.Rdev = a.Rdev
	}
}

// putEntry fills the answer to whatever names a node.
func (fs *FileSystem) putEntry(ctx *request, e *meta.Entry, out *fuse.EntryOut) fuse.Status {
	out.NodeId = uint64(e.Inode)
	out.Generation = 1
	timeout := fs.vfs.Conf.EntryTimeout
	if e.Attr.Typ == meta.TypeDirectory {
		timeout = fs.vfs.Conf.DirEntryTimeout
	}
	out.SetEntryTimeout(timeout)
	out.SetAttrTimeout(fs.putAttr(ctx, e, &out.Attr))
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (fs *FileSystem) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, h)
	e, err := fs.vfs.Lookup(ctx, Ino(h.NodeId), name)
	if err == syscall.ENOENT && fs.vfs.Conf.NegEntryTimeout > 0 {
		out.SetEntryTimeout(fs.vfs.Conf.NegEntryTimeout) // node 0 with a timeout: "there is none, and you may remember it"
		return fuse.OK
	}
	if err != 0 {
		return fuse.Status(err)
	}
	return fs.putEntry(ctx, e, out)
}

// GetAttr implements fuse.RawFileSystem.
func (fs *FileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	e, err := fs.vfs.GetAttr(ctx, Ino(in.NodeId), 0)
	if err != 0 {
		return fuse.Status(err)
	}
	out.SetTimeout(fs.putAttr(ctx, e, &out.Attr))
	return fuse.OK
}

// settable are the kernel's bits that mean the same in JuiceFS; the others (file handle, lock owner, ctime, kill suid) do not
// and would be read as something else.
const settable = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME |
	fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW

// SetAttr implements fuse.RawFileSystem.
func (fs *FileSystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	inode := Ino(in.NodeId)
	fh := uint64(0)
	if in.Valid&fuse.FATTR_FH != 0 && in.Valid&fuse.FATTR_SIZE != 0 {
		h, err := fs.find(in.Fh, inode, syscall.O_WRONLY)
		if err != 0 {
			return fuse.Status(err)
		}
		fh = h.vfs
	}
	if in.Valid&(fuse.FATTR_SIZE|fuse.FATTR_MTIME|fuse.FATTR_MTIME_NOW) != 0 {
		// A time that a replay would change is no reason to fail.
		if err := fs.settleBefore(ctx, inode); err != 0 && in.Valid&fuse.FATTR_SIZE != 0 {
			return fuse.Status(err)
		}
	}
	e, err := fs.vfs.SetAttr(ctx, inode, int(in.Valid&settable), fh, in.Mode, in.Uid, in.Gid,
		int64(in.Atime), int64(in.Mtime), in.Atimensec, in.Mtimensec, in.Size)
	if err != 0 {
		return fuse.Status(err)
	}
	out.SetTimeout(fs.putAttr(ctx, e, &out.Attr))
	return fuse.OK
}

// Access implements fuse.RawFileSystem. The kernel asks only if the mount lacks default_permissions.
func (fs *FileSystem) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return fuse.Status(fs.vfs.Access(newRequest(cancel, &in.InHeader), Ino(in.NodeId), int(in.Mask)))
}

// StatFs implements fuse.RawFileSystem.
func (fs *FileSystem) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := fs.vfs.StatFS(newRequest(cancel, in), Ino(in.NodeId))
	if err != 0 {
		return fuse.Status(err)
	}
	const block = 4096
	out.Bsize, out.Frsize, out.NameLen = block, block, meta.MaxName
	out.Blocks = max(st.Total/block, 1)
	out.Bavail = st.Avail / block
	out.Bfree = out.Bavail
	out.Files, out.Ffree = st.Files, st.Favail
	return fuse.OK
}
