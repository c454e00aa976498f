package volumes

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// copySource clones the source of a volume to new/.
func (s *Service) copySource(ctx meta.Context, l layout, r record) error {
	source, label, err := s.source(ctx, l, *r.Source)
	if err != nil {
		return err
	}
	return s.jobs.await(callerOf(ctx), "volume "+r.ID, label, s.o.Patience, func(ctx context.Context) error {
		return s.clone(newRequest(ctx), source, l.fresh, r.ID, label)
	})
}

// source finds what is to be copied.
func (s *Service) source(ctx meta.Context, l layout, from admin.Source) (ino meta.Ino, label string, err error) {
	if from.VolumeID != "" {
		ino, err = s.volumeDirectory(ctx, l, from.VolumeID)
		return ino, "volume " + from.VolumeID, err
	}
	label = "snapshot " + from.SnapshotID
	r, err := s.readRecord(ctx, l.snapshots, from.SnapshotID)
	if err != nil {
		return 0, label, err
	}
	if r == nil || r.State == deleting {
		return 0, label, fmt.Errorf("%w: %s", admin.ErrNotFound, label)
	}
	if r.State != ready {
		return 0, label, fmt.Errorf("%w: %s is not ready", admin.ErrBusy, label)
	}
	content, ok, err := s.lookup(ctx, l.content, from.SnapshotID)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the content of %s", admin.ErrNotFound, label)
	}
	return content.ino, label, err
}

// volumeDirectory is the directory of a volume that is ready.
func (s *Service) volumeDirectory(ctx meta.Context, l layout, id string) (meta.Ino, error) {
	r, err := s.find(ctx, l, id)
	if err != nil {
		return 0, err
	}
	at, err := s.walk(ctx, l, r.Path, false)
	if err != nil {
		return 0, err
	}
	if !at.found || !at.node.directory {
		return 0, fmt.Errorf("%w: the directory of volume %s", admin.ErrNotFound, id)
	}
	return at.node.ino, nil
}

// progressEvery is how often copies and removals say how far they are.
const progressEvery = 10 * time.Second

// clone copies a tree's metadata. The name appears when all is there. Somebody else's that is there already is as good.
func (s *Service) clone(ctx meta.Context, source, parent meta.Ino, name, label string) error {
	var count, total uint64
	began := time.Now()
	stop := s.progress("copying", label, &count)
	const keepAttributes = meta.CLONE_MODE_PRESERVE_ATTR
	st := s.m.Clone(ctx, source, source, parent, name, keepAttributes, 0, &count, &total)
	stop()
	switch st {
	case 0:
		s.o.Log.WithField("source", label).WithField("entries", count).WithField("took", time.Since(began)).Info("copied")
		return nil
	case syscall.EEXIST:
		return nil
	case syscall.ENOENT:
		return fmt.Errorf("%w: %s has gone", admin.ErrNotFound, label)
	}
	return failed(ctx, "copy "+label, st)
}

// progress logs a count until the returned function is called.
func (s *Service) progress(action, label string, count *uint64) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.o.Log.WithField("of", label).WithField("entries", atomic.LoadUint64(count)).Info(action)
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
