package filesystem

import (
	"context"
	"errors"
	"maps"
	"slices"
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
	if _, err := fs.settle(own(true), Ino(oldest)); err == syscall.EINTR {
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
		_, _ = fs.settle(own(true), Ino(oldest))
	}
}

// settle brings an inode's data to stable storage and drops its records. It is for callers who learn the result, or who are the last
// that could: a failure for good drops the records too. over is false if the data is still under way; then they stay.
func (fs *FileSystem) settle(ctx *request, inode Ino) (over bool, err errno) {
	covered := fs.writes.Begin(uint64(inode))
	if over, err = fs.sync(ctx, inode, covered); over {
		covered.Done()
	}
	return over, err
}

// sync flushes an inode. vfs flushes by handle; without one (its last was just released) the file is opened for it.
func (fs *FileSystem) sync(ctx *request, inode Ino, covered client.Flushing) (over bool, err errno) {
	begin := time.Now()
	if h := fs.handles.writer(inode); h != nil {
		err := fs.vfs.Fsync(ctx, inode, 0, h.vfs)
		if err != syscall.EBADF || fs.handles.get(h.number) == h {
			return fs.over(err, begin), err
		}
	}
	if covered.Empty() {
		return true, 0
	}
	_, fh, err := fs.vfs.Open(own(true), inode, syscall.O_WRONLY)
	switch err {
	case 0:
	case syscall.ENOENT, syscall.ESTALE:
		return true, 0 // the file is gone, and with it what was written
	default:
		return false, err
	}
	defer fs.vfs.Release(own(true), inode, fh)
	err = fs.vfs.Fsync(ctx, inode, 0, fh)
	return fs.over(err, begin), err
}

// over tells whether the data of a flush that began then is out of vfs's hands: written, or lost. vfs keeps the error of lost data and
// gives it to each later write, flush and fsync of the open file. But it also gives up waiting, with an error that it does not keep, for
// uploads that go on: they may still succeed, or end with this process and nobody would be told.
func (fs *FileSystem) over(err errno, begin time.Time) bool {
	switch err {
	case 0:
		return true
	case syscall.EINTR:
		return false
	}
	return time.Since(begin) < flushPatience(fs.vfs.Conf.Meta.Retries)
}

// flushPatience is how long vfs waits in a flush for data that is under way (pkg/vfs/writer.go, fileWriter.flush).
func flushPatience(retries int) time.Duration {
	n := uint32(retries) + 2
	return max(5*time.Minute, time.Duration(n*n/2)*time.Second)
}

// settleBefore settles an inode before a request that logged writes must not come after. Data that is still under way would, and
// so would its replay: then it gives the error that the request must fail with. What is lost stands in nobody's way.
func (fs *FileSystem) settleBefore(ctx *request, inode Ino) errno {
	if !fs.writes.Has(uint64(inode)) {
		return 0
	}
	if over, err := fs.settle(ctx, inode); !over {
		return err
	}
	return 0
}

// retryPause is how long an inode that could not be flushed is left alone: a flush holds up those who write to it.
const retryPause = time.Minute

// failure is how a flush that nobody had asked for has ended.
type failure struct {
	err errno
	at  time.Time
}

// flushOld flushes inodes whose writes lie in the log for long, so that the log stays short and a replay never brings back
// data that is older than JuiceFS itself would hold back. It returns when ctx ends.
func (fs *FileSystem) flushOld(ctx context.Context) {
	ticker := time.NewTicker(flushAge / 5)
	defer ticker.Stop()
	failures := make(map[uint64]failure)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		maps.DeleteFunc(failures, func(node uint64, _ failure) bool { return !fs.writes.Has(node) })
		due := slices.DeleteFunc(fs.writes.OlderThan(flushAge), func(node uint64) bool {
			return time.Since(failures[node].at) < retryPause
		})
		for node, err := range fs.flushAll(due) {
			if err == 0 {
				delete(failures, node)
				continue
			}
			if failures[node].err != err {
				fs.log.WithField("inode", node).WithError(err).Error("buffered data could not be written")
			}
			failures[node] = failure{err, time.Now()}
		}
		fs.writes.Rest()
	}
}

// parallel is how many inodes are flushed or opened at once when there are many.
const parallel = 16

// flushAll flushes inodes and tells how each ended. No caller would learn of a failure, so the records stay whatever it is,
// until a request gets the error or, after a restart, a replay writes the data once more.
func (fs *FileSystem) flushAll(nodes []uint64) map[uint64]errno {
	results := make(map[uint64]errno, len(nodes))
	var mu sync.Mutex // guards results
	limit := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, node := range nodes {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			covered := fs.writes.Begin(node)
			_, err := fs.sync(own(true), Ino(node), covered)
			if err == 0 {
				covered.Done()
			}
			mu.Lock()
			results[node] = err
			mu.Unlock()
		})
	}
	wg.Wait()
	return results
}
