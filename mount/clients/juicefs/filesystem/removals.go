package filesystem

import (
	"math"
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
	// closing holds back opens of an inode while its last handle is released: that removes an inode without a name. Inodes share
	// these locks by their number.
	closing [64]sync.RWMutex
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

// always is what an open remembers that began while a removal ran.
const always = math.MaxUint64

// watch is called when an open begins; met takes its result.
func (r *removals) watch() uint64 {
	begun := r.begun.Load()
	if r.active.Load() > 0 {
		return always
	}
	return begun
}

// met tells whether a removal ran at some time since watch.
func (r *removals) met(since uint64) bool { return r.begun.Load() != since }

// await returns when the removals that run now have ended.
func (r *removals) await() {
	r.running.Lock()
	defer r.running.Unlock()
}

func (r *removals) lockOf(inode Ino) *sync.RWMutex {
	return &r.closing[uint64(inode)%uint64(len(r.closing))]
}

// open opens a file, and makes sure that it is still there when vfs counts it as open.
func (fs *FileSystem) open(ctx *request, inode Ino, flags uint32) (*meta.Entry, uint64, errno) {
	since := fs.removals.watch()
	lock := fs.removals.lockOf(inode)
	lock.RLock()
	e, fh, err := fs.vfs.Open(ctx, inode, flags)
	lock.RUnlock()
	if err != 0 {
		return nil, 0, err
	}
	return e, fh, fs.verify(ctx, inode, fh, since)
}

// verify looks whether an inode that was opened is still there, if there was a removal. ESTALE lets the kernel look the
// name up again.
func (fs *FileSystem) verify(ctx *request, inode Ino, fh, since uint64) errno {
	if !fs.removals.met(since) {
		return 0
	}
	fs.removals.await()
	var attr meta.Attr
	err := fs.meta.GetAttr(ctx, inode, &attr)
	if err == 0 {
		return 0
	}
	fs.vfs.Release(ctx, inode, fh)
	if err == syscall.ENOENT {
		err = syscall.ESTALE
	}
	return err
}

// release lets go of a vfs handle.
func (fs *FileSystem) release(ctx *request, inode Ino, fh uint64) {
	lock := fs.removals.lockOf(inode)
	lock.Lock()
	defer lock.Unlock()
	fs.vfs.Release(ctx, inode, fh)
}
