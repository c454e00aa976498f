package filesystem

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/juicedata/juicefs/pkg/vfs"

	"github.com/sidemount/sidemount/mount/client"
)

// write logs a write and executes it.
func (fs *FileSystem) write(ctx *request, h *handle, data []byte, offset uint64) errno {
	if vfs.IsSpecialNode(h.inode) {
		return fs.vfs.Write(ctx, h.inode, data, offset, h.vfs)
	}
	record, err := fs.logWrite(ctx, h.inode, offset, data)
	if err != 0 {
		return err
	}
	if err := fs.vfs.Write(ctx, h.inode, data, offset, h.vfs); err != 0 {
		fs.writes.Discard(record)
		return err
	}
	fs.writes.Applied(record)
	return 0
}

// logWrite appends to the write log. A full log makes room by flushing the inodes with the oldest writes, so that a writer
// that outruns the object storage waits here, as it would for JuiceFS's buffer.
func (fs *FileSystem) logWrite(ctx *request, inode Ino, offset uint64, data []byte) (*client.Record, errno) {
	record, err := fs.writes.Append(uint64(inode), int64(offset), data)
	for errors.Is(err, client.ErrLogFull) {
		if st := fs.makeRoom(ctx); st != 0 {
			return nil, st
		}
		record, err = fs.writes.Append(uint64(inode), int64(offset), data)
	}
	if err != nil {
		return nil, syscall.EFBIG
	}
	return record, 0
}

// interruptPoll is how often a writer who waits for room looks whether its caller has given up.
const interruptPoll = 100 * time.Millisecond

// makeRoom flushes the inode with the oldest record. One goroutine does, the others find room afterwards. If the oldest write is
// still being executed, the flush does not cover it and its end is waited for.
func (fs *FileSystem) makeRoom(ctx *request) errno {
	fs.room.Lock()
	defer fs.room.Unlock()
	freed := fs.writes.Freed()
	oldest, ok := fs.writes.Oldest()
	if !ok || !fs.writes.Crowded() {
		return 0
	}
	if err := fs.settle(own(true), Ino(oldest)); err == syscall.EINTR {
		return err
	}
	ticker := time.NewTicker(interruptPoll)
	defer ticker.Stop()
	for {
		select {
		case <-freed:
			return 0
		case <-ticker.C:
		}
		if ctx.Canceled() {
			return syscall.EINTR
		}
		if next, ok := fs.writes.Oldest(); !ok || next != oldest {
			return 0
		}
		_ = fs.settle(own(true), Ino(oldest))
	}
}

// settle brings an inode's data to stable storage and drops its records. A failure other than an interrupt drops them too:
// vfs keeps it and gives it to whoever writes, syncs or closes the inode next.
func (fs *FileSystem) settle(ctx *request, inode Ino) errno {
	covered := fs.writes.Begin(uint64(inode))
	err := fs.sync(ctx, inode)
	if err != syscall.EINTR {
		covered.Done()
	}
	return err
}

// sync flushes an inode. vfs flushes by handle; without one (its last was just released) everything is flushed.
func (fs *FileSystem) sync(ctx *request, inode Ino) errno {
	if h := fs.handles.writer(inode); h != nil {
		err := fs.vfs.Fsync(ctx, inode, 0, h.vfs)
		if err != syscall.EBADF || fs.handles.get(h.number) == h {
			return err
		}
	}
	if err := fs.vfs.FlushAll(""); err != nil {
		return syscall.EIO
	}
	return 0
}

// settleBefore settles an inode before a request that logged writes must not come after. vfs flushes for such requests as well and
// goes on whatever the result; so does this.
func (fs *FileSystem) settleBefore(ctx *request, inode Ino) {
	if fs.writes.Has(uint64(inode)) {
		_ = fs.settle(ctx, inode)
	}
}

// flushOld settles inodes whose writes lie in the log for long, so that the log stays short and a replay never brings back
// data that is older than JuiceFS itself would hold back. It returns when ctx ends.
func (fs *FileSystem) flushOld(ctx context.Context) {
	ticker := time.NewTicker(flushAge / 5)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		fs.settleAll(fs.writes.OlderThan(flushAge))
		fs.writes.Rest()
	}
}

// parallel is how many inodes are settled or opened at once when there are many.
const parallel = 16

func (fs *FileSystem) settleAll(nodes []uint64) {
	limit := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, node := range nodes {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := fs.settle(own(true), Ino(node)); err != 0 {
				fs.log.WithField("inode", node).WithError(err).Error("buffered data could not be written")
			}
		})
	}
	wg.Wait()
}
