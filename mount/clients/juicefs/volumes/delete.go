package volumes

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// DeleteVolume implements admin.Service.
func (s *Service) DeleteVolume(ctx context.Context, c admin.DeleteVolume) error {
	if err := admin.CheckID(c.ID); err != nil {
		return err
	}
	_, err := do(ctx, s, func(ctx meta.Context, l layout) (struct{}, error) {
		unlock, err := s.locks.lock(callerOf(ctx), "volume "+c.ID)
		if err != nil {
			return struct{}{}, err
		}
		defer unlock()
		return struct{}{}, s.deleteVolume(ctx, l, c.ID)
	})
	return err
}

func (s *Service) deleteVolume(ctx meta.Context, l layout, id string) error {
	if s.jobs.reads("volume " + id) {
		return fmt.Errorf("%w: volume %s is being copied", admin.ErrBusy, id)
	}
	r, err := s.readRecord(ctx, l.volumes, id)
	if err != nil {
		return err
	}
	if r == nil {
		if r, err = s.foreign(ctx, l, id); err != nil {
			return err
		}
		if r == nil { // nothing, or a record that was never written
			if foreignID.MatchString(id) {
				// It may have been removed before. But a deletion does not tell the options of a StorageClass, so another driver's "subdir" is not known.
				s.o.Log.WithField("volume", id).Warn("no such volume in the root directory, nothing is removed; a directory of the JuiceFS CSI driver below a subdir stays")
			}
			return s.dropRecord(ctx, l.volumes, id)
		}
		if r, err = s.adopt(ctx, l, *r); err != nil {
			return err
		}
	}
	if err := s.jobs.end(callerOf(ctx), "volume "+id); err != nil {
		return err
	}
	r.State = deleting
	if err := s.writeRecord(ctx, l.volumes, *r); err != nil && !errors.Is(err, errGone) {
		return err
	}
	unlock, err := s.locks.lock(callerOf(ctx), "path "+r.Path)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.discard(ctx, l, l.fresh, id); err != nil {
		return err
	}
	if err := s.leave(ctx, l, *r); err != nil {
		return err
	}
	return s.dropRecord(ctx, l.volumes, id)
}

// adopt makes another driver's volume ours, so that its deletion survives a crash like any other.
func (s *Service) adopt(ctx meta.Context, l layout, r record) (*record, error) {
	if err := s.checkNested(ctx, l, r.Path); err != nil {
		return nil, err
	}
	kept, err := s.claim(ctx, l.volumes, r)
	if err != nil {
		return nil, err
	}
	n, ok, err := s.lookup(ctx, l.root, r.ID)
	if err != nil || !ok {
		return kept, err
	}
	return kept, s.addMember(ctx, n.ino, r.ID)
}

// leave takes the volume off its directory, and the directory away if it was the last one there.
func (s *Service) leave(ctx meta.Context, l layout, r record) error {
	log := s.o.Log.WithField("volume", r.ID).WithField("path", r.Path)
	at, err := s.walk(ctx, l, r.Path, false)
	if errors.Is(err, admin.ErrInvalid) {
		log.WithError(err).Warn("path leads elsewhere now, nothing is removed")
		return nil
	}
	if err != nil || !at.found || !at.node.directory {
		return err
	}
	mine, err := s.isMember(ctx, at.node.ino, r.ID)
	if err != nil {
		return err
	}
	if !mine {
		log.Warn("another directory is at the path now, nothing is removed")
		return nil
	}
	others, err := s.members(ctx, l, at.node.ino, r.Path)
	if err != nil {
		return err
	}
	others = without(others, r.ID)
	if len(others) == 0 {
		return s.throw(ctx, l, at, r)
	}
	if err := s.setQuota(ctx, s.absolute(r.Path), limitOf(others)); err != nil {
		return err
	}
	return s.removeMember(ctx, at.node.ino, r.ID)
}

func without(all []record, id string) []record {
	var others []record
	for _, r := range all {
		if r.ID != id {
			others = append(others, r)
		}
	}
	return others
}

// throw moves a volume's directory into the trash. Who joined it in the moment before gets it back.
func (s *Service) throw(ctx meta.Context, l layout, at place, r record) error {
	name := trashName(r.ID)
	switch st := s.m.Rename(ctx, at.parent, at.name, l.trash, name, meta.RenameNoReplace, nil, nil); st {
	case 0:
	case syscall.ENOENT:
		return nil
	default:
		return failed(ctx, "move the volume's directory to the trash", st)
	}
	joined, err := s.members(ctx, l, at.node.ino, r.Path)
	if err != nil {
		return err
	}
	if joined = without(joined, r.ID); len(joined) > 0 {
		err = s.restore(ctx, l, name, at.node.ino, joined)
	} else {
		err = s.dropQuota(ctx, s.absolute(admin.Reserved, "trash", name))
		s.wake()
	}
	if err != nil {
		return err
	}
	return s.removeMember(ctx, at.node.ino, r.ID)
}

// discard moves a name of a directory of ours into the trash, if it is there.
func (s *Service) discard(ctx meta.Context, l layout, parent meta.Ino, id string) error {
	switch st := s.m.Rename(ctx, parent, id, l.trash, trashName(id)+leftover, meta.RenameNoReplace, nil, nil); st {
	case 0:
		s.wake()
		return nil
	case syscall.ENOENT:
		return nil
	default:
		return failed(ctx, "move "+id+" to the trash", st)
	}
}

// leftover ends the name of what was thrown away without ever having been a volume's directory. A copy carries the members of
// what it was copied from, and they mean nothing.
const leftover = ".part"

// trashName is a name in the trash that nothing else has.
func trashName(id string) string {
	return id + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
}
