package volumes

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// CreateSnapshot implements admin.Service.
func (s *Service) CreateSnapshot(ctx context.Context, c admin.CreateSnapshot) (admin.Snapshot, error) {
	if err := errors.Join(admin.CheckID(c.ID), admin.CheckID(c.SourceVolumeID)); err != nil {
		return admin.Snapshot{}, err
	}
	return do(ctx, s, func(ctx meta.Context, l layout) (admin.Snapshot, error) {
		unlock, err := s.locks.lock(callerOf(ctx), "snapshot "+c.ID)
		if err != nil {
			return admin.Snapshot{}, err
		}
		defer unlock()
		r, err := s.createSnapshot(ctx, l, c)
		if err != nil {
			return admin.Snapshot{}, err
		}
		return r.snapshot(), nil
	})
}

func (r record) snapshot() admin.Snapshot {
	shot := admin.Snapshot{ID: r.ID, SizeBytes: r.Size, Created: r.Created, Ready: r.State == ready}
	if r.Source != nil {
		shot.SourceVolumeID = r.Source.VolumeID
	}
	return shot
}

func (s *Service) createSnapshot(ctx meta.Context, l layout, c admin.CreateSnapshot) (record, error) {
	kept, err := s.readRecord(ctx, l.snapshots, c.ID)
	if err != nil {
		return record{}, err
	}
	if kept != nil && kept.State == deleting {
		if err := s.deleteSnapshot(ctx, l, c.ID); err != nil {
			return record{}, err
		}
		kept = nil
	}
	if kept == nil {
		if kept, err = s.beginSnapshot(ctx, l, c); err != nil {
			return record{}, err
		}
	}
	if kept.Source == nil || kept.Source.VolumeID != c.SourceVolumeID {
		return record{}, fmt.Errorf("%w: snapshot %s is of another volume", admin.ErrExists, c.ID)
	}
	if kept.State != ready {
		if err := s.finishSnapshot(ctx, l, *kept); err != nil && !errors.Is(err, admin.ErrBusy) {
			return record{}, err
		}
		if kept, err = s.readRecord(ctx, l.snapshots, c.ID); err != nil {
			return record{}, err
		}
	}
	if kept == nil || kept.State == deleting {
		return record{}, fmt.Errorf("%w: snapshot %s has been deleted meanwhile", admin.ErrBusy, c.ID)
	}
	return *kept, nil
}

// beginSnapshot writes the record of a snapshot of a volume that is there.
func (s *Service) beginSnapshot(ctx meta.Context, l layout, c admin.CreateSnapshot) (*record, error) {
	if _, err := s.volumeDirectory(ctx, l, c.SourceVolumeID); err != nil {
		return nil, err
	}
	return s.claim(ctx, l.snapshots, record{
		ID: c.ID, State: creating, Source: &admin.Source{VolumeID: c.SourceVolumeID}, Created: time.Now().UTC().Truncate(time.Second),
	})
}

// finishSnapshot copies, or joins the copy that runs.
func (s *Service) finishSnapshot(ctx meta.Context, l layout, r record) error {
	label := "volume " + r.Source.VolumeID
	return s.jobs.await(callerOf(ctx), "snapshot "+r.ID, label, s.o.Patience, func(ctx context.Context) error {
		in := newRequest(ctx)
		if err := s.copySnapshot(in, l, &r, label); err != nil {
			return err
		}
		err := s.writeRecord(in, l.snapshots, r)
		if errors.Is(err, errGone) { // another worker has deleted the snapshot meanwhile
			return s.discard(in, l, l.content, r.ID)
		}
		return err
	})
}

// copySnapshot makes the content, unless an earlier worker has, and measures it.
func (s *Service) copySnapshot(ctx meta.Context, l layout, r *record, label string) error {
	content, ok, err := s.lookup(ctx, l.content, r.ID)
	if err != nil {
		return err
	}
	if !ok {
		source, err := s.volumeDirectory(ctx, l, r.Source.VolumeID)
		if err != nil {
			return err
		}
		r.Created = time.Now().UTC().Truncate(time.Second)
		if err := s.clone(ctx, source, l.content, r.ID, label); err != nil {
			return err
		}
		if content, ok, err = s.lookup(ctx, l.content, r.ID); err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: snapshot %s has been deleted meanwhile", admin.ErrBusy, r.ID)
		}
	}
	var sum meta.Summary
	if st := s.m.GetSummary(ctx, content.ino, &sum, true, true); st != 0 {
		return failed(ctx, "measure snapshot", st)
	}
	r.State, r.Size = ready, clip(sum.Size)
	return nil
}

// DeleteSnapshot implements admin.Service.
func (s *Service) DeleteSnapshot(ctx context.Context, c admin.DeleteSnapshot) error {
	if err := admin.CheckID(c.ID); err != nil {
		return err
	}
	_, err := do(ctx, s, func(ctx meta.Context, l layout) (struct{}, error) {
		unlock, err := s.locks.lock(callerOf(ctx), "snapshot "+c.ID)
		if err != nil {
			return struct{}{}, err
		}
		defer unlock()
		return struct{}{}, s.deleteSnapshot(ctx, l, c.ID)
	})
	return err
}

func (s *Service) deleteSnapshot(ctx meta.Context, l layout, id string) error {
	if s.jobs.reads("snapshot " + id) {
		return fmt.Errorf("%w: snapshot %s is being copied", admin.ErrBusy, id)
	}
	r, err := s.readRecord(ctx, l.snapshots, id)
	if err != nil {
		return err
	}
	if r == nil {
		return s.dropRecord(ctx, l.snapshots, id)
	}
	r.State = deleting
	if err := s.writeRecord(ctx, l.snapshots, *r); err != nil && !errors.Is(err, errGone) {
		return err
	}
	if err := s.jobs.end(callerOf(ctx), "snapshot "+id); err != nil {
		return err
	}
	if err := s.discard(ctx, l, l.content, id); err != nil {
		return err
	}
	return s.dropRecord(ctx, l.snapshots, id)
}

// Snapshots implements admin.Service.
func (s *Service) Snapshots(ctx context.Context, q admin.SnapshotsQuery) ([]admin.Snapshot, error) {
	if q.ID != "" {
		if err := admin.CheckID(q.ID); err != nil {
			return nil, err
		}
	}
	return do(ctx, s, func(ctx meta.Context, l layout) ([]admin.Snapshot, error) {
		all, err := s.snapshotRecords(ctx, l, q.ID)
		if err != nil {
			return nil, err
		}
		found := []admin.Snapshot{}
		for _, r := range all {
			shot := r.snapshot()
			if r.State != deleting && (q.SourceVolumeID == "" || q.SourceVolumeID == shot.SourceVolumeID) {
				found = append(found, shot)
			}
		}
		sort.Slice(found, func(i, j int) bool { return found[i].ID < found[j].ID })
		return found, nil
	})
}

func (s *Service) snapshotRecords(ctx meta.Context, l layout, id string) ([]record, error) {
	if id == "" {
		return s.records(ctx, l.snapshots)
	}
	r, err := s.readRecord(ctx, l.snapshots, id)
	if err != nil || r == nil {
		return nil, err
	}
	return []record{*r}, nil
}
