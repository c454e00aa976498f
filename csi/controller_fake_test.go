package csi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// memory is an administrative service whose file systems live in memory, one per metaurl.
type memory struct {
	mu sync.Mutex
	// hold, if set, is entered by CreateVolume and lets it go on when closed.
	hold, entered chan struct{}
	// begun, if set, is the path at which a volume is being made already.
	begun string
	// fail, if set, is what the next command answers.
	fail error
	// copies is how many times a snapshot says that it is not ready.
	copies  int
	systems map[string]*system
	now     time.Time
}

type system struct {
	volumes   map[string]admin.Volume
	snapshots map[string]admin.Snapshot
	left      map[string]int
	used      map[string]int64
}

var _ admin.Service = (*memory)(nil)

func newMemory() *memory {
	return &memory{systems: map[string]*system{}, now: time.Unix(1700000000, 0)}
}

// open returns a file system as a worker would: the Secret decides.
func (m *memory) open(fs admin.FileSystem) (*system, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	url := fs.Secret["metaurl"]
	if fs.Client != mount.JuiceFS || url == "" || len(fs.Options) > 0 {
		return nil, fmt.Errorf("open %q with %v: %w", fs.Client, fs.Options, mount.ErrConfig)
	}
	if m.systems[url] == nil {
		m.systems[url] = &system{volumes: map[string]admin.Volume{}, snapshots: map[string]admin.Snapshot{}, left: map[string]int{}, used: map[string]int64{}}
	}
	return m.systems[url], nil
}

func (m *memory) CreateVolume(_ context.Context, c admin.CreateVolume) (admin.Volume, error) {
	if m.hold != nil {
		m.entered <- struct{}{}
		<-m.hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(c.FileSystem)
	if err != nil {
		return admin.Volume{}, err
	}
	if err := admin.CheckID(c.ID); err != nil {
		return admin.Volume{}, err
	}
	path := c.Path
	if path == "" {
		path = c.ID
	}
	if path, err = admin.CleanPath(path); err != nil {
		return admin.Volume{}, err
	}
	if m.begun != "" {
		path = m.begun
	}
	if v, ok := s.volumes[c.ID]; ok {
		if v.Path != path || v.CapacityBytes != c.CapacityBytes || !sameSource(v.Source, c.Source) {
			return admin.Volume{}, fmt.Errorf("volume %s: %w", c.ID, admin.ErrExists)
		}
		return v, nil
	}
	v := admin.Volume{ID: c.ID, Path: path, CapacityBytes: c.CapacityBytes, Source: c.Source, Created: m.now}
	if c.Source != nil {
		if s.used[c.ID], err = s.content(*c.Source); err != nil {
			return admin.Volume{}, err
		}
	}
	v.UsedBytes = s.used[c.ID]
	s.volumes[c.ID] = v
	return v, nil
}

func (s *system) content(source admin.Source) (int64, error) {
	if snapshot, ok := s.snapshots[source.SnapshotID]; ok {
		if !snapshot.Ready {
			return 0, fmt.Errorf("snapshot %s: %w", snapshot.ID, admin.ErrBusy)
		}
		return snapshot.SizeBytes, nil
	}
	if _, ok := s.volumes[source.VolumeID]; ok {
		return s.used[source.VolumeID], nil
	}
	return 0, fmt.Errorf("source %s%s: %w", source.SnapshotID, source.VolumeID, admin.ErrNotFound)
}

func (m *memory) DeleteVolume(_ context.Context, c admin.DeleteVolume) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(c.FileSystem)
	if err == nil {
		delete(s.volumes, c.ID)
	}
	return err
}

func (m *memory) Volume(_ context.Context, q admin.VolumeQuery) (admin.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(q.FileSystem)
	if err != nil {
		return admin.Volume{}, err
	}
	v, ok := s.volumes[q.ID]
	if !ok {
		return admin.Volume{}, fmt.Errorf("volume %s: %w", q.ID, admin.ErrNotFound)
	}
	v.UsedBytes = s.used[q.ID]
	return v, nil
}

func (m *memory) ExpandVolume(_ context.Context, c admin.ExpandVolume) (admin.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(c.FileSystem)
	if err != nil {
		return admin.Volume{}, err
	}
	v, ok := s.volumes[c.ID]
	if !ok {
		return admin.Volume{}, fmt.Errorf("volume %s: %w", c.ID, admin.ErrNotFound)
	}
	if v.CapacityBytes != 0 {
		v.CapacityBytes = max(v.CapacityBytes, c.CapacityBytes)
	}
	s.volumes[c.ID] = v
	return v, nil
}

func (m *memory) CreateSnapshot(_ context.Context, c admin.CreateSnapshot) (admin.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(c.FileSystem)
	if err != nil {
		return admin.Snapshot{}, err
	}
	snapshot, ok := s.snapshots[c.ID]
	switch {
	case ok && snapshot.SourceVolumeID != c.SourceVolumeID:
		return admin.Snapshot{}, fmt.Errorf("snapshot %s: %w", c.ID, admin.ErrExists)
	case ok:
	case s.volumes[c.SourceVolumeID].ID == "":
		return admin.Snapshot{}, fmt.Errorf("volume %s: %w", c.SourceVolumeID, admin.ErrNotFound)
	default:
		snapshot = admin.Snapshot{ID: c.ID, SourceVolumeID: c.SourceVolumeID, Created: m.now}
		s.left[c.ID] = m.copies
	}
	if snapshot.Ready = s.left[c.ID] == 0; snapshot.Ready {
		snapshot.SizeBytes = s.used[c.SourceVolumeID]
	} else {
		s.left[c.ID]--
	}
	s.snapshots[c.ID] = snapshot
	return snapshot, nil
}

func (m *memory) DeleteSnapshot(_ context.Context, c admin.DeleteSnapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(c.FileSystem)
	if err == nil {
		delete(s.snapshots, c.ID)
	}
	return err
}

func (m *memory) Snapshots(_ context.Context, q admin.SnapshotsQuery) ([]admin.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.open(q.FileSystem)
	if err != nil {
		return nil, err
	}
	var found []admin.Snapshot
	for _, id := range slices.Sorted(maps.Keys(s.snapshots)) {
		snapshot := s.snapshots[id]
		if (q.ID == "" || q.ID == id) && (q.SourceVolumeID == "" || q.SourceVolumeID == snapshot.SourceVolumeID) {
			found = append(found, snapshot)
		}
	}
	return found, nil
}

func (m *memory) Capacity(_ context.Context, q admin.CapacityQuery) (admin.Capacity, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.open(q.FileSystem)
	return admin.Capacity{TotalBytes: 1 << 50, AvailableBytes: 1 << 50}, err
}
