package volumes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// CreateVolume implements admin.Service.
func (s *Service) CreateVolume(ctx context.Context, c admin.CreateVolume) (admin.Volume, error) {
	want, err := newVolume(c)
	if err != nil {
		return admin.Volume{}, err
	}
	return do(ctx, s, func(ctx meta.Context, l layout) (admin.Volume, error) {
		unlock, err := s.locks.lock(callerOf(ctx), "volume "+c.ID)
		if err != nil {
			return admin.Volume{}, err
		}
		defer unlock()
		r, err := s.createVolume(ctx, l, want, mode(c.Mode))
		if err != nil {
			return admin.Volume{}, err
		}
		return s.present(ctx, r)
	})
}

// newVolume checks a command and makes the record of it.
func newVolume(c admin.CreateVolume) (r record, err error) {
	if err := admin.CheckID(c.ID); err != nil {
		return r, err
	}
	path := c.Path
	if path == "" {
		path = c.ID
	}
	if path, err = cleanPath(path); err != nil {
		return r, err
	}
	if c.CapacityBytes < 0 || c.CapacityBytes > math.MaxInt64/2 {
		return r, fmt.Errorf("%w: capacity %d", admin.ErrInvalid, c.CapacityBytes)
	}
	if c.Mode > 0o7777 {
		return r, fmt.Errorf("%w: mode %o", admin.ErrInvalid, c.Mode)
	}
	if c.Source != nil {
		if (c.Source.SnapshotID == "") == (c.Source.VolumeID == "") {
			return r, fmt.Errorf("%w: a source is either a snapshot or a volume", admin.ErrInvalid)
		}
		if err := admin.CheckID(c.Source.SnapshotID + c.Source.VolumeID); err != nil {
			return r, err
		}
		if c.Source.VolumeID == c.ID {
			return r, fmt.Errorf("%w: a volume cannot be its own source", admin.ErrInvalid)
		}
	}
	return record{
		ID: c.ID, State: creating, Path: path, Asked: c.CapacityBytes, Capacity: c.CapacityBytes, Source: c.Source, Created: time.Now().UTC().Truncate(time.Second),
	}, nil
}

func mode(m uint32) uint16 {
	if m == 0 {
		return admin.DefaultMode
	}
	return uint16(m)
}

// createVolume makes the volume of a record, or goes on with what an earlier call has begun.
func (s *Service) createVolume(ctx meta.Context, l layout, want record, mode uint16) (r record, err error) {
	for range retries {
		kept, err := s.claim(ctx, l.volumes, want)
		if err != nil {
			return r, err
		}
		if kept.State == deleting {
			// A deletion that nobody finishes must not keep the ID for ever.
			if err := s.deleteVolume(ctx, l, want.ID); err != nil {
				return r, err
			}
			continue
		}
		if kept.State == creating {
			// The path may come from labels that have changed since. The attempt goes on where it was begun: what it has copied is there, and
			// a directory that it has joined is not its own to take away.
			want.Path = kept.Path
		}
		if err := same(*kept, want); err != nil {
			return r, err
		}
		if kept.State == ready {
			return *kept, nil
		}
		return s.finish(ctx, l, *kept, mode)
	}
	return r, fmt.Errorf("%w: volume %s is created and deleted at once", admin.ErrBusy, want.ID)
}

// same compares a volume with what is asked for. A volume that has grown since is still the one that was asked for.
func same(kept, want record) error {
	switch {
	case kept.Path != want.Path:
		return fmt.Errorf("%w: volume %s has path %q, not %q", admin.ErrExists, want.ID, kept.Path, want.Path)
	case kept.Asked != want.Asked && kept.Capacity != want.Asked:
		return fmt.Errorf("%w: volume %s has capacity %d, not %d", admin.ErrExists, want.ID, kept.Capacity, want.Asked)
	case (kept.Source == nil) != (want.Source == nil), kept.Source != nil && *kept.Source != *want.Source:
		return fmt.Errorf("%w: volume %s has another source", admin.ErrExists, want.ID)
	}
	return nil
}

// finish brings a volume from "creating" to "ready". What can never succeed leaves no trace.
func (s *Service) finish(ctx meta.Context, l layout, r record, mode uint16) (record, error) {
	unlock, err := s.locks.lock(callerOf(ctx), "path "+r.Path)
	if err != nil {
		return r, err
	}
	defer unlock()
	if err := s.place(ctx, l, r, mode); err != nil {
		for _, final := range []error{admin.ErrInvalid, admin.ErrExists, admin.ErrInUse, admin.ErrNotFound} {
			if errors.Is(err, final) {
				return r, errors.Join(err, s.withdraw(ctx, l, r))
			}
		}
		return r, err
	}
	r.State = ready
	err = s.writeRecord(ctx, l.volumes, r)
	if errors.Is(err, errGone) {
		// Another worker has deleted the volume meanwhile, and may have looked before its directory was there.
		return r, errors.Join(fmt.Errorf("%w: volume %s has been deleted meanwhile", admin.ErrBusy, r.ID), s.leave(ctx, l, r))
	}
	return r, err
}

// withdraw removes what an attempt that cannot succeed has left.
func (s *Service) withdraw(ctx meta.Context, l layout, r record) error {
	if err := s.discard(ctx, l, l.fresh, r.ID); err != nil {
		return err
	}
	return s.dropRecord(ctx, l.volumes, r.ID)
}

// place brings the volume's directory to its path.
func (s *Service) place(ctx meta.Context, l layout, r record, mode uint16) error {
	for range retries {
		at, err := s.walk(ctx, l, r.Path, true)
		if err != nil {
			return err
		}
		if at.found {
			done, err := s.join(ctx, l, r, at)
			if err != nil && !errors.Is(err, errMoved) {
				return err
			}
			if done {
				return s.discard(ctx, l, l.fresh, r.ID)
			}
			continue
		}
		if err := s.build(ctx, l, r, mode); errors.Is(err, errMoved) {
			continue
		} else if err != nil {
			return err
		}
		switch st := s.m.Rename(ctx, l.fresh, r.ID, at.parent, at.name, meta.RenameNoReplace, nil, nil); st {
		case 0:
			return nil
		case syscall.EEXIST, syscall.ENOENT: // another worker, or another volume at this path, was first
		default:
			return failed(ctx, "put the volume's directory in place", st)
		}
	}
	return fmt.Errorf("%w: path %q comes and goes", admin.ErrBusy, r.Path)
}

// join makes the volume a member of the directory at its path. It is not done if the directory has gone away at the same time.
func (s *Service) join(ctx meta.Context, l layout, r record, at place) (done bool, err error) {
	if !at.node.directory {
		return false, fmt.Errorf("%w: there is something at path %q that is not a directory", admin.ErrExists, r.Path)
	}
	mine, err := s.isMember(ctx, at.node.ino, r.ID)
	if err != nil {
		return false, err
	}
	if !mine && r.Source != nil {
		return false, fmt.Errorf("%w: there is a directory at path %q, and a copy must have its own", admin.ErrExists, r.Path)
	}
	if r.Source == nil {
		if err := s.enter(ctx, l, r, at); err != nil {
			return false, err
		}
	}
	again, err := s.walk(ctx, l, r.Path, false)
	if err != nil {
		return false, err
	}
	if again.found && again.node == at.node {
		return true, nil
	}
	return false, s.removeMember(ctx, at.node.ino, r.ID)
}

// enter adds the volume to a directory and gives that the quota of all its members.
func (s *Service) enter(ctx meta.Context, l layout, r record, at place) error {
	if err := s.addMember(ctx, at.node.ino, r.ID); err != nil {
		return err
	}
	all, err := s.members(ctx, l, at.node.ino, r.Path)
	if err != nil {
		return err
	}
	if len(all) <= 1 { // it was nobody's, or is ours from an earlier attempt
		if err := s.checkNested(ctx, l, r.Path); err != nil {
			return errors.Join(err, s.removeMember(ctx, at.node.ino, r.ID))
		}
		if r.Capacity == 0 {
			return nil // an administrator's own quota stays
		}
		return s.limit(ctx, l, r, s.absolute(r.Path))
	}
	return s.setQuota(ctx, s.absolute(r.Path), limitOf(all))
}

// limit gives the volume's quota to a directory that is not empty. Measuring may outlast the command.
func (s *Service) limit(ctx meta.Context, l layout, r record, dir string) error {
	if r.Measured {
		return nil
	}
	return s.jobs.await(callerOf(ctx), "volume "+r.ID, "volume "+r.ID, s.o.Patience, func(ctx context.Context) error {
		in := newRequest(ctx)
		if err := s.setQuota(in, dir, r.Capacity); err != nil {
			return err
		}
		if err := s.measure(in, dir); err != nil {
			return err
		}
		r.Measured = true
		if err := s.writeRecord(in, l.volumes, r); err != nil && !errors.Is(err, errGone) {
			return err
		}
		return nil
	})
}

// build makes the volume's directory under new/, complete.
func (s *Service) build(ctx meta.Context, l layout, r record, mode uint16) error {
	fresh, ok, err := s.lookup(ctx, l.fresh, r.ID)
	if err != nil {
		return err
	}
	if !ok {
		if r.Source != nil {
			err = s.copySource(ctx, l, r)
		} else {
			_, err = s.directory(ctx, l.fresh, r.ID, mode)
		}
		if err != nil {
			return err
		}
		if fresh, ok, err = s.lookup(ctx, l.fresh, r.ID); err != nil || !ok {
			return err // another worker has put it in place already
		}
	}
	if err := s.onlyMember(ctx, fresh.ino, r.ID); err != nil {
		return err
	}
	if r.Source == nil {
		// The mode was masked by nobody, but the directory may be an earlier attempt's.
		if st := s.m.SetAttr(ctx, fresh.ino, meta.SetAttrMode, 0, &meta.Attr{Mode: mode}); st != 0 && st != syscall.ENOENT {
			return failed(ctx, "set mode", st)
		}
	}
	if r.Capacity == 0 {
		return nil
	}
	dir := s.absolute(admin.Reserved, "new", r.ID)
	if r.Source == nil {
		return s.setQuota(ctx, dir, r.Capacity)
	}
	if err := s.limit(ctx, l, r, dir); err != nil {
		return err
	}
	q, err := s.quota(ctx, dir)
	if err != nil || q == nil {
		return err
	}
	if q.UsedSpace > r.Capacity {
		return fmt.Errorf("%w: the source takes up %d bytes, the capacity is %d", admin.ErrInvalid, q.UsedSpace, r.Capacity)
	}
	return nil
}
