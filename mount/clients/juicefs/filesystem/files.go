package filesystem

import (
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/vfs"
)

// Open implements fuse.RawFileSystem.
func (fs *FileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	inode := Ino(in.NodeId)
	e, fh, err := fs.open(ctx, inode, in.Flags)
	if err != 0 {
		return fuse.Status(err)
	}
	out.Fh = fs.handles.add(inode, reopenFlags(in.Flags), fh).number
	switch {
	case vfs.IsSpecialNode(inode):
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	case e.Attr.KeepCache:
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (fs *FileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	inode := Ino(in.NodeId)
	h, err := fs.find(in.Fh, inode, in.Flags)
	if err != 0 {
		return nil, fuse.Status(err)
	}
	n, err := fs.vfs.Read(newRequest(cancel, &in.InHeader), inode, buf, in.Offset, h.vfs)
	if err != 0 {
		return nil, fuse.Status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (fs *FileSystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	inode := Ino(in.NodeId)
	flags := in.Flags
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		flags = syscall.O_RDWR // pages of a shared mapping come without flags
	}
	h, err := fs.find(in.Fh, inode, flags)
	if err != 0 {
		return 0, fuse.Status(err)
	}
	if err := fs.write(newRequest(cancel, &in.InHeader), h, data, in.Offset); err != 0 {
		return 0, fuse.Status(err)
	}
	return uint32(len(data)), fuse.OK
}

// Flush implements fuse.RawFileSystem: a descriptor of the file was closed.
func (fs *FileSystem) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	inode := Ino(in.NodeId)
	err := errno(0)
	if h := fs.handles.get(in.Fh); h != nil {
		covered := fs.writes.Begin(uint64(inode))
		err = fs.vfs.Flush(ctx, inode, h.vfs, 0)
		if h.writable() && fs.over(err, ctx.begin) {
			covered.Done()
		}
		fs.handles.flushed(h, in.LockOwner)
	} else if fs.writes.Has(uint64(inode)) {
		_, err = fs.settle(ctx, inode)
	}
	fs.unlock(ctx, holder{inode, in.LockOwner})
	return fuse.Status(err)
}

// Fsync implements fuse.RawFileSystem.
func (fs *FileSystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	inode := Ino(in.NodeId)
	if vfs.IsSpecialNode(inode) {
		return fuse.OK
	}
	_, err := fs.settle(newRequest(cancel, &in.InHeader), inode)
	return fuse.Status(err)
}

// Release implements fuse.RawFileSystem: the open file is gone. The kernel waits for no answer.
func (fs *FileSystem) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	ctx := newRequest(cancel, &in.InHeader)
	inode := Ino(in.NodeId)
	if in.ReleaseFlags&fuse.FUSE_RELEASE_FLOCK_UNLOCK != 0 {
		if err := fs.meta.Flock(ctx, inode, in.LockOwner, syscall.F_UNLCK, false); err != 0 {
			fs.log.WithField("inode", inode).WithError(err).Warn("flock of a closed file could not be released")
		}
	}
	h := fs.handles.get(in.Fh)
	if h == nil {
		return
	}
	if h.writable() && fs.writes.Has(uint64(inode)) {
		// Pages of a shared mapping may arrive after close. vfs flushes on release too, but would not tell how it went.
		if _, err := fs.settle(own(true), inode); err != 0 {
			fs.log.WithField("inode", inode).WithError(err).Error("data of a closed file could not be written")
		}
	}
	for _, owner := range fs.handles.lockOwners(h) {
		fs.unlock(ctx, holder{inode, owner})
	}
	last := fs.handles.remove(h)
	if last {
		for _, left := range fs.locks.of(inode) {
			fs.unlock(ctx, left)
		}
	}
	fs.release(ctx, inode, h.vfs)
}

// Fallocate implements fuse.RawFileSystem.
func (fs *FileSystem) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	inode := Ino(in.NodeId)
	h, err := fs.find(in.Fh, inode, syscall.O_WRONLY)
	if err != 0 {
		return fuse.Status(err)
	}
	if err := fs.settleBefore(ctx, inode); err != 0 {
		return fuse.Status(err)
	}
	return fuse.Status(fs.vfs.Fallocate(ctx, inode, uint8(in.Mode), int64(in.Offset), int64(in.Length), h.vfs))
}

// maxCopy is the most that one copy_file_range copies: the answer has 32 bits.
const maxCopy = math.MaxUint32 + 1 - meta.ChunkSize

// CopyFileRange implements fuse.RawFileSystem.
func (fs *FileSystem) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	ctx := newRequest(cancel, &in.InHeader)
	from, to := Ino(in.NodeId), Ino(in.NodeIdOut)
	source, err := fs.find(in.FhIn, from, syscall.O_RDONLY)
	if err != 0 {
		return 0, fuse.Status(err)
	}
	target, err := fs.find(in.FhOut, to, syscall.O_WRONLY)
	if err != 0 {
		return 0, fuse.Status(err)
	}
	for _, inode := range []Ino{from, to} {
		if err := fs.settleBefore(ctx, inode); err != 0 {
			return 0, fuse.Status(err)
		}
	}
	n, err := fs.vfs.CopyFileRange(ctx, from, source.vfs, in.OffIn, to, target.vfs, in.OffOut, min(in.Len, maxCopy), uint32(in.Flags))
	if err != 0 {
		return 0, fuse.Status(err)
	}
	return uint32(n), fuse.OK
}
