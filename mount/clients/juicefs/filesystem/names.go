package filesystem

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/vfs"
)

// reply answers a request that made or named a node.
func (fs *FileSystem) reply(ctx *request, parent uint64, name string, e *meta.Entry, err errno, out *fuse.EntryOut) fuse.Status {
	if err != 0 {
		return fuse.Status(err)
	}
	fs.streams.changed(Ino(parent), name)
	return fs.putEntry(ctx, e, out)
}

// umask is what JuiceFS takes away from a new node's mode: the option's, or the program's own, which the kernel has taken away already.
func (fs *FileSystem) umask(program uint32) uint16 {
	if own := fs.vfs.Conf.UMask; own <= 0o777 {
		return own
	}
	return uint16(program)
}

// Mknod implements fuse.RawFileSystem.
func (fs *FileSystem) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	e, err := fs.vfs.Mknod(ctx, Ino(in.NodeId), name, uint16(in.Mode), fs.umask(in.Umask), in.Rdev)
	return fs.reply(ctx, in.NodeId, name, e, err, out)
}

// Mkdir implements fuse.RawFileSystem.
func (fs *FileSystem) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	e, err := fs.vfs.Mkdir(ctx, Ino(in.NodeId), name, uint16(in.Mode), fs.umask(in.Umask))
	return fs.reply(ctx, in.NodeId, name, e, err, out)
}

// Symlink implements fuse.RawFileSystem.
func (fs *FileSystem) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, h)
	e, err := fs.vfs.Symlink(ctx, target, Ino(h.NodeId), name)
	return fs.reply(ctx, h.NodeId, name, e, err, out)
}

// Link implements fuse.RawFileSystem.
func (fs *FileSystem) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	e, err := fs.vfs.Link(ctx, Ino(in.Oldnodeid), Ino(in.NodeId), name)
	return fs.reply(ctx, in.NodeId, name, e, err, out)
}

// Readlink implements fuse.RawFileSystem.
func (fs *FileSystem) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := fs.vfs.Readlink(newRequest(cancel, h), Ino(h.NodeId))
	return target, fuse.Status(err)
}

// Unlink implements fuse.RawFileSystem.
func (fs *FileSystem) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer fs.removals.begin()()
	err := fs.vfs.Unlink(newRequest(cancel, h), Ino(h.NodeId), name)
	if err == 0 {
		fs.streams.gone(Ino(h.NodeId), name)
	}
	return fuse.Status(err)
}

// Rmdir implements fuse.RawFileSystem.
func (fs *FileSystem) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	err := fs.vfs.Rmdir(newRequest(cancel, h), Ino(h.NodeId), name)
	if err == 0 {
		fs.streams.gone(Ino(h.NodeId), name)
	}
	return fuse.Status(err)
}

// Rename implements fuse.RawFileSystem.
func (fs *FileSystem) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	defer fs.removals.begin()()
	err := fs.vfs.Rename(newRequest(cancel, &in.InHeader), Ino(in.NodeId), from, Ino(in.Newdir), to, in.Flags)
	if err != 0 {
		return fuse.Status(err)
	}
	if in.Flags&meta.RenameExchange != 0 {
		fs.streams.changed(Ino(in.NodeId), from)
	} else {
		fs.streams.gone(Ino(in.NodeId), from)
	}
	fs.streams.changed(Ino(in.Newdir), to)
	return fuse.OK
}

// Create implements fuse.RawFileSystem.
func (fs *FileSystem) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return fs.create(newRequest(cancel, &in.InHeader), in, name, in.Flags, out)
}

// Tmpfile implements fuse.RawFileSystem: a file that never had a name.
func (fs *FileSystem) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return fs.create(newRequest(cancel, &in.InHeader), in, "", in.Flags|vfs.O_TMPFILE, out)
}

func (fs *FileSystem) create(ctx *request, in *fuse.CreateIn, name string, flags uint32, out *fuse.CreateOut) fuse.Status {
	since := fs.removals.watch()
	e, fh, err := fs.vfs.Create(ctx, Ino(in.NodeId), name, uint16(in.Mode), fs.umask(in.Umask), flags)
	if err == 0 && name != "" {
		err = fs.verify(ctx, e.Inode, fh, since)
	}
	if err != 0 {
		return fuse.Status(err)
	}
	if flags&syscall.O_TRUNC != 0 {
		// The name was there: this is an open that truncates, and no older write may come after it.
		fs.writes.Begin(uint64(e.Inode)).Done()
	}
	out.Fh = fs.handles.add(e.Inode, reopenFlags(flags), fh).number
	return fs.reply(ctx, in.NodeId, name, e, 0, &out.EntryOut)
}
