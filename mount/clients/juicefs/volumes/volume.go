package volumes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// Volume implements admin.Service.
func (s *Service) Volume(ctx context.Context, q admin.VolumeQuery) (admin.Volume, error) {
	if err := admin.CheckID(q.ID); err != nil {
		return admin.Volume{}, err
	}
	return do(ctx, s, func(ctx meta.Context, l layout) (admin.Volume, error) {
		r, err := s.find(ctx, l, q.ID)
		if err != nil {
			return admin.Volume{}, err
		}
		return s.present(ctx, r)
	})
}

// foreignID are the volumes of external-provisioner, whose directories the JuiceFS CSI driver names after them.
var foreignID = regexp.MustCompile(`^pvc-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// find returns the record of a volume that is ready. A volume that the JuiceFS CSI driver has made has none; its directory is
// named like it, and a record is made up.
func (s *Service) find(ctx meta.Context, l layout, id string) (record, error) {
	kept, err := s.readRecord(ctx, l.volumes, id)
	if err != nil {
		return record{}, err
	}
	if kept != nil && kept.State == ready {
		return *kept, nil
	}
	if kept == nil {
		foreign, err := s.foreign(ctx, l, id)
		if err != nil {
			return record{}, err
		}
		if foreign != nil {
			return *foreign, nil
		}
	}
	return record{}, fmt.Errorf("%w: volume %s", admin.ErrNotFound, id)
}

// foreign is a record for a directory that has the name of a provisioned volume and is nobody's; nil if there is none.
func (s *Service) foreign(ctx meta.Context, l layout, id string) (*record, error) {
	if !foreignID.MatchString(id) {
		return nil, nil
	}
	n, ok, err := s.lookup(ctx, l.root, id)
	if err != nil || !ok || !n.directory {
		return nil, err
	}
	ids, err := s.memberIDs(ctx, n.ino)
	if err != nil || len(ids) > 0 {
		return nil, err
	}
	var attr meta.Attr
	if st := s.m.GetAttr(ctx, n.ino, &attr); st != 0 {
		return nil, failed(ctx, "read directory "+id, st)
	}
	r := &record{Version: recordVersion, ID: id, State: ready, Path: id, Created: time.Unix(attr.Ctime, 0).UTC()}
	q, err := s.quota(ctx, s.absolute(id))
	if err != nil {
		return nil, err
	}
	if q != nil {
		r.Asked, r.Capacity = q.MaxSpace, q.MaxSpace
	}
	return r, nil
}

// present is a volume with its usage. A directory that an administrator has removed has none.
func (s *Service) present(ctx meta.Context, r record) (admin.Volume, error) {
	v := admin.Volume{ID: r.ID, Path: r.Path, CapacityBytes: r.Capacity, Source: r.Source, Created: r.Created}
	if r.Capacity == 0 {
		return v, nil
	}
	q, err := s.quota(ctx, s.absolute(r.Path))
	if err != nil {
		return v, err
	}
	if q != nil {
		v.UsedBytes, v.UsedInodes = max(0, q.UsedSpace), max(0, q.UsedInodes)
	}
	return v, nil
}

// ExpandVolume implements admin.Service.
func (s *Service) ExpandVolume(ctx context.Context, c admin.ExpandVolume) (admin.Volume, error) {
	if err := admin.CheckID(c.ID); err != nil {
		return admin.Volume{}, err
	}
	if c.CapacityBytes <= 0 || c.CapacityBytes > math.MaxInt64/2 {
		return admin.Volume{}, fmt.Errorf("%w: capacity %d", admin.ErrInvalid, c.CapacityBytes)
	}
	return do(ctx, s, func(ctx meta.Context, l layout) (admin.Volume, error) {
		unlock, err := s.locks.lock(callerOf(ctx), "volume "+c.ID)
		if err != nil {
			return admin.Volume{}, err
		}
		defer unlock()
		r, err := s.expand(ctx, l, c.ID, c.CapacityBytes)
		if err != nil {
			return admin.Volume{}, err
		}
		return s.present(ctx, r)
	})
}

// expand writes the record first: a call that comes after a crash sets the quota again.
func (s *Service) expand(ctx meta.Context, l layout, id string, bytes int64) (record, error) {
	r, err := s.find(ctx, l, id)
	if err != nil {
		return r, err
	}
	if r.Capacity == 0 {
		return r, nil // it has no limit
	}
	unlock, err := s.locks.lock(callerOf(ctx), "path "+r.Path)
	if err != nil {
		return r, err
	}
	defer unlock()
	if bytes > r.Capacity {
		r.Capacity = bytes
	}
	if _, err := s.claim(ctx, l.volumes, r); err != nil { // another driver's volume becomes ours
		return r, err
	}
	if err := s.writeRecord(ctx, l.volumes, r); err != nil {
		if errors.Is(err, errGone) {
			err = fmt.Errorf("%w: volume %s", admin.ErrNotFound, id)
		}
		return r, err
	}
	dir, err := s.volumeDirectory(ctx, l, id)
	if err != nil {
		return r, err
	}
	if err := s.addMember(ctx, dir, id); err != nil {
		return r, err
	}
	all, err := s.members(ctx, l, dir, r.Path)
	if err != nil {
		return r, err
	}
	return r, s.setQuota(ctx, s.absolute(r.Path), limitOf(all))
}

// Capacity implements admin.Service.
func (s *Service) Capacity(ctx context.Context, _ admin.CapacityQuery) (admin.Capacity, error) {
	return do(ctx, s, func(ctx meta.Context, l layout) (admin.Capacity, error) {
		var total, available, used, free uint64
		if st := s.m.StatFS(ctx, l.root, &total, &available, &used, &free); st != 0 {
			return admin.Capacity{}, failed(ctx, "read capacity", st)
		}
		return admin.Capacity{
			TotalBytes: clip(total), AvailableBytes: clip(available), TotalInodes: clip(used + free), AvailableInodes: clip(free),
		}, nil
	})
}

func clip(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
