package filesystem

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/juicedata/juicefs/pkg/meta"
)

// removals are the requests that may take an inode's last name away. JuiceFS keeps such an inode if it is open, but looks whether
// it is before it removes it, and an open that comes in between succeeds on an inode that is about to vanish. So an open that
// met a removal looks again once that has ended.
type removals struct {
	running sync.RWMutex // removals hold it for reading
	begun   atomic.Uint64
	active  atomic.Int64
}

// begin marks a removal's begin; the result marks its end.
func (r *removals) begin() (end func()) {
	r.running.RLock()
	r.active.Add(1)
	r.begun.Add(1)
	return func() {
		r.active.Add(-1)
		r.running.RUnlock()
	}
}

// met tells whether a removal ran at some time since begun was read.
func (r *removals) met(begun uint64) bool { return r.active.Load() > 0 || r.begun.Load() != begun }

// await returns when the removals that run now have ended.
func (r *removals) await() {
	r.running.Lock()
	defer r.running.Unlock()
}

// open opens a file, and makes sure that it is still there when vfs counts it as open. ESTALE lets the kernel look the name up
// again.
func (fs *FileSystem) open(ctx *request, inode Ino, flags uint32) (*meta.Entry, uint64, errno) {
	begun := fs.removals.begun.Load()
	e, fh, err := fs.vfs.Open(ctx, inode, flags)
	if err != 0 || !fs.removals.met(begun) {
		return e, fh, err
	}
	fs.removals.await()
	var attr meta.Attr
	if err := fs.meta.GetAttr(ctx, inode, &attr); err != 0 {
		fs.vfs.Release(ctx, inode, fh)
		if err == syscall.ENOENT {
			err = syscall.ESTALE
		}
		return nil, 0, err
	}
	return e, fh, 0
}
