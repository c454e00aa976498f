package filesystem

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/client"
)

// resume takes over what an earlier process left in the session's memory and in the metadata engine: open files, locks and
// writes. In a new session there is nothing.
func (fs *FileSystem) resume(ctx context.Context) error {
	if err := fs.reopenAll(ctx); err != nil {
		return err
	}
	if err := fs.recallLocks(); err != nil {
		return err
	}
	return fs.replay()
}

// reopenAll opens the files that the earlier process had open. A file that is gone for good (another client removed it, or
// the metadata session had expired) keeps no handle; the next request to it gets ESTALE or ENOENT.
func (fs *FileSystem) reopenAll(ctx context.Context) error {
	limit := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed error
	fs.handles.table.used(func(index int, s slot) {
		if ctx.Err() != nil {
			return
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := fs.reopenSlot(index, s); err != 0 {
				mu.Lock()
				failed = fmt.Errorf("%w: open inode %d again: %w", mount.ErrUnavailable, s.inode, err)
				mu.Unlock()
			}
		})
	})
	wg.Wait()
	return errors.Join(failed, ctx.Err())
}

func (fs *FileSystem) reopenSlot(index int, s slot) errno {
	h := &handle{number: s.handle, inode: Ino(s.inode), flags: s.flags, slot: index}
	if s.lockOwner != 0 {
		h.owners = map[uint64]struct{}{s.lockOwner: {}}
	}
	_, err := fs.reopen(h)
	switch err {
	case 0:
		return 0
	case syscall.ENOENT, syscall.ESTALE:
		fs.handles.table.remove(index)
		return 0
	case syscall.EROFS: // the mount has become read-only; reading goes on
		h.flags = h.flags&^uint32(syscall.O_ACCMODE|syscall.O_APPEND) | syscall.O_RDONLY
		_, err = fs.reopen(h)
	}
	return err
}

// recallLocks learns from the metadata engine who holds POSIX locks in this session.
func (fs *FileSystem) recallLocks() error {
	if fs.engine.Sid == 0 {
		return nil
	}
	session, err := fs.meta.GetSession(fs.engine.Sid, true)
	if err != nil {
		return fmt.Errorf("%w: read the metadata session: %w", mount.ErrUnavailable, err)
	}
	for _, p := range session.Plocks {
		fs.locks.add(holder{p.Inode, p.Owner})
	}
	return nil
}

// replay writes again what was acknowledged and is not known to be on stable storage. The records stay in the log until the
// data has been flushed, which happens beside serving.
func (fs *FileSystem) replay() error {
	opened := make(map[Ino]*handle)
	n := 0
	err := fs.writes.Replay(func(r *client.Record, data []byte) error {
		h, err := fs.replayHandle(opened, Ino(r.Node))
		if err == 0 {
			err = fs.vfs.Write(own(true), h.inode, data, uint64(r.Offset), h.vfs)
		}
		switch err {
		case 0:
			n++
			return nil
		case syscall.ENOENT, syscall.ESTALE, syscall.EBADF:
			return syscall.ESTALE
		}
		return fmt.Errorf("%w: %w", mount.ErrUnavailable, err)
	})
	if n > 0 {
		fs.log.WithField("writes", n).Info("replayed writes of the earlier process")
	}
	fs.flusher.Go(func() { fs.settleReplayed(opened) })
	return err
}

// replayHandle finds or opens a file for writing. The handle is not the kernel's and appears nowhere else.
func (fs *FileSystem) replayHandle(opened map[Ino]*handle, inode Ino) (*handle, errno) {
	if h, ok := opened[inode]; ok {
		return h, 0
	}
	_, fh, err := fs.vfs.Open(own(true), inode, syscall.O_RDWR)
	if err != 0 {
		return nil, err
	}
	opened[inode] = &handle{inode: inode, flags: syscall.O_RDWR, vfs: fh, slot: noSlot}
	return opened[inode], 0
}

// settleReplayed flushes replayed files and closes the handles that replay has opened.
func (fs *FileSystem) settleReplayed(opened map[Ino]*handle) {
	for inode, h := range opened {
		covered := fs.writes.Begin(uint64(inode))
		ctx := own(true)
		if err := fs.vfs.Fsync(ctx, inode, 0, h.vfs); err != 0 {
			// The records stay: flushOld tries again, and whoever has the file open gets the error.
			fs.log.WithField("inode", inode).WithError(err).Error("replayed data could not be written")
		} else {
			covered.Done()
		}
		fs.vfs.Release(ctx, inode, h.vfs)
	}
}
