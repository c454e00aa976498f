package volumes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

const (
	// reapEvery is how often the trash is looked at without being told to.
	reapEvery = time.Minute
	// removers is how many directories a removal works on at once.
	removers = 10
)

// wake tells that there is something in the trash.
func (s *Service) wake() {
	select {
	case s.trash <- struct{}{}:
	default:
	}
}

// reap removes what is in the trash whenever there is something, until ctx ends.
func (s *Service) reap(ctx context.Context) error {
	ticker := time.NewTicker(reapEvery)
	defer ticker.Stop()
	swept := false
	for {
		s.jobs.count(1)
		if err := s.round(ctx, &swept); err != nil && ctx.Err() == nil {
			s.o.Log.WithError(err).Warn("trash is not empty yet")
		}
		s.jobs.count(-1)
		select {
		case <-ctx.Done():
			return nil
		case <-s.trash:
		case <-ticker.C:
		}
	}
}

// round empties the trash once. The first round also throws away what dead workers have left elsewhere.
func (s *Service) round(ctx context.Context, swept *bool) error {
	l, err := bounded(ctx, s, reachTimeout, s.open)
	if err != nil {
		return err
	}
	in := newRequest(ctx)
	if !*swept {
		if err := s.sweep(in, l); err != nil {
			return err
		}
		*swept = true
	}
	names, err := s.names(in, l.trash)
	if err != nil {
		return err
	}
	var failures []error
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.remove(in, l, name); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// sweep throws away directories under new/ and content/ whose record is gone. Who makes one has written its record before.
func (s *Service) sweep(ctx meta.Context, l layout) error {
	for _, d := range []struct{ dir, records meta.Ino }{{l.fresh, l.volumes}, {l.content, l.snapshots}} {
		ids, err := s.names(ctx, d.dir)
		if err != nil {
			return err
		}
		for _, id := range ids {
			r, err := s.readRecord(ctx, d.records, id)
			if err != nil || r != nil {
				continue // a damaged record is somebody's to look at
			}
			if err := s.discard(ctx, l, d.dir, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove removes one thing in the trash for good, or gives it back if volumes still lie there: a worker died before it looked.
func (s *Service) remove(ctx meta.Context, l layout, name string) error {
	n, ok, err := s.lookup(ctx, l.trash, name)
	if err != nil || !ok {
		return err
	}
	if !strings.HasSuffix(name, leftover) {
		joined, err := s.members(ctx, l, n.ino, "")
		if err != nil {
			return err
		}
		if len(joined) > 0 {
			return s.restore(ctx, l, name, n.ino, joined)
		}
	}
	var count uint64
	began := time.Now()
	stop := s.progress("removing", name, &count)
	st := s.m.Remove(newRequest(callerOf(ctx)), l.trash, name, false, removers, &count)
	stop()
	if st != 0 && st != syscall.ENOENT {
		return failed(ctx, "remove "+name, st)
	}
	s.o.Log.WithField("of", name).WithField("entries", count).WithField("took", time.Since(began)).Info("removed")
	return nil
}

// restore puts a directory back from the trash for the volumes that lie there. It replaces nothing: what is at the path by now, if
// it is not the volume's, is for an administrator to look at, and the directory stays in the trash until then.
func (s *Service) restore(ctx meta.Context, l layout, name string, ino meta.Ino, members []record) error {
	path := members[0].Path
	for range retries {
		at, err := s.walk(ctx, l, path, true)
		if err != nil {
			return err
		}
		if at.found {
			mine, err := s.isMember(ctx, at.node.ino, members[0].ID)
			if err != nil {
				return err
			}
			if mine { // the volume has a directory; this one it only passed through
				return s.removeMember(ctx, ino, members[0].ID)
			}
			break
		}
		switch st := s.m.Rename(ctx, l.trash, name, at.parent, at.name, meta.RenameNoReplace, nil, nil); st {
		case 0, syscall.ENOENT:
			return nil
		case syscall.EEXIST: // look at it
		default:
			return failed(ctx, "put "+name+" back", st)
		}
	}
	return fmt.Errorf("%w: %s/trash/%s belongs at path %q, where something else is", admin.ErrBusy, admin.Reserved, name, path)
}
