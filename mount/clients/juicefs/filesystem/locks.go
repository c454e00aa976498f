package filesystem

import (
	"math"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/vfs"
)

const (
	errNoTTY = syscall.ENOTTY
	// endOfFile is the last byte that a lock can cover.
	endOfFile = uint64(math.MaxInt64)
)

// holder is somebody who may hold POSIX locks on an inode: the kernel's number for a process's files, or for one open file.
type holder struct {
	inode Ino
	owner uint64
}

// locks remembers who holds POSIX locks, so that only a holder's close costs a request to the metadata engine. The locks
// themselves are there.
type locks struct {
	mu      sync.Mutex // guards holders
	holders map[holder]struct{}
}

func newLocks() *locks { return &locks{holders: make(map[holder]struct{})} }

func (l *locks) add(h holder) {
	l.mu.Lock()
	l.holders[h] = struct{}{}
	l.mu.Unlock()
}

// take removes a holder and tells whether it was one.
func (l *locks) take(h holder) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.holders[h]
	delete(l.holders, h)
	return ok
}

// of are all holders of an inode.
func (l *locks) of(inode Ino) []holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []holder
	for h := range l.holders {
		if h.inode == inode {
			all = append(all, h)
		}
	}
	return all
}

// unlock drops every POSIX lock of a holder, if it has any.
func (fs *FileSystem) unlock(ctx *request, h holder) {
	if !fs.locks.take(h) {
		return
	}
	if err := fs.meta.Setlk(ctx, h.inode, h.owner, false, syscall.F_UNLCK, 0, endOfFile, 0); err != 0 {
		fs.locks.add(h)
		fs.log.WithField("inode", h.inode).WithError(err).Warn("locks of a closed file could not be released, the next close tries again")
	}
}

// GetLk implements fuse.RawFileSystem.
func (fs *FileSystem) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	if vfs.IsSpecialNode(Ino(in.NodeId)) {
		return fuse.EPERM
	}
	l := in.Lk
	err := fs.meta.Getlk(newRequest(cancel, &in.InHeader), Ino(in.NodeId), in.Owner, &l.Typ, &l.Start, &l.End, &l.Pid)
	if err == 0 {
		out.Lk = l
	}
	return fuse.Status(err)
}

// SetLk implements fuse.RawFileSystem.
func (fs *FileSystem) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fs.setLock(newRequest(cancel, &in.InHeader), in, false)
}

// SetLkw implements fuse.RawFileSystem.
func (fs *FileSystem) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fs.setLock(newRequest(cancel, &in.InHeader), in, true)
}

// setLock bypasses vfs: it would make its own handle numbers part of a lock's owner, and those end with the process.
func (fs *FileSystem) setLock(ctx *request, in *fuse.LkIn, wait bool) fuse.Status {
	inode := Ino(in.NodeId)
	if vfs.IsSpecialNode(inode) {
		return fuse.EPERM
	}
	if in.LkFlags&fuse.FUSE_LK_FLOCK != 0 {
		return fuse.Status(fs.meta.Flock(ctx, inode, in.Owner, in.Lk.Typ, wait))
	}
	who := holder{inode, in.Owner}
	if in.Lk.Typ != syscall.F_UNLCK {
		// Before the lock is there: a close that comes while the answer is under way must find it.
		fs.locks.add(who)
	}
	err := fs.meta.Setlk(ctx, inode, in.Owner, wait, in.Lk.Typ, in.Lk.Start, in.Lk.End, in.Lk.Pid)
	if err == 0 && in.Lk.Typ != syscall.F_UNLCK {
		if h := fs.handles.get(in.Fh); h != nil {
			fs.handles.locked(h, in.Owner)
		}
	}
	return fuse.Status(err)
}
