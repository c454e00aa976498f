package volumes

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// fill makes files in a volume's directories, a hundred in each.
func fill(t testing.TB, m meta.Meta, volume string, files int) {
	t.Helper()
	ctx := meta.Background()
	var attr meta.Attr
	var top, dir, ino meta.Ino
	if st := m.Lookup(ctx, meta.RootInode, volume, &top, &attr, false); st != 0 {
		t.Fatal(st)
	}
	for i := range files {
		if i%100 == 0 {
			if st := m.Mkdir(ctx, top, fmt.Sprintf("d%d", i), 0o755, 0, 0, &dir, &attr); st != 0 {
				t.Fatal(st)
			}
		}
		if st := m.Mknod(ctx, dir, fmt.Sprintf("f%d", i), meta.TypeFile, 0o644, 0, 0, "", &ino, &attr); st != 0 {
			t.Fatal(st)
		}
	}
}

func TestALargeCopyRunsOnByItself(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		s.o.Patience = time.Microsecond
		mustCreate(t, s, admin.CreateVolume{ID: "a", CapacityBytes: 1 << 30})
		const files = 300
		fill(t, m, "a", files)
		shot, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "s", SourceVolumeID: "a"})
		if err != nil || shot.Ready {
			t.Fatalf("a snapshot that cannot be there yet: %+v, %v", shot, err)
		}
		copied := admin.CreateVolume{ID: "b", CapacityBytes: 1 << 30, Source: &admin.Source{SnapshotID: "s"}}
		if _, err := s.CreateVolume(background, copied); !errors.Is(err, admin.ErrBusy) {
			t.Errorf("a volume of a snapshot that is not ready: %v", err)
		}
		if err := s.DeleteVolume(background, admin.DeleteVolume{ID: "a"}); !errors.Is(err, admin.ErrBusy) {
			t.Errorf("deletion of what is being copied: %v", err)
		}
		eventually(t, "the snapshot is ready", func() bool {
			shot, err = s.CreateSnapshot(background, admin.CreateSnapshot{ID: "s", SourceVolumeID: "a"})
			return err != nil || shot.Ready
		})
		if want := int64(4096 * (files + files/100 + 1)); err != nil || shot.SizeBytes != want {
			t.Errorf("snapshot %+v, %v; want size %d", shot, err, want)
		}
		var v admin.Volume
		eventually(t, "the volume is there", func() bool {
			v, err = s.CreateVolume(background, copied)
			return !errors.Is(err, admin.ErrBusy)
		})
		if err != nil || v.UsedInodes != files+files/100 {
			t.Errorf("volume %+v, %v", v, err)
		}
		// What is still being copied can be deleted.
		if _, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "t", SourceVolumeID: "a"}); err != nil {
			t.Error(err)
		}
		if err := s.DeleteSnapshot(background, admin.DeleteSnapshot{ID: "t"}); err != nil {
			t.Error(err)
		}
		if got := tree(t, m, admin.Reserved+"/snapshots"); len(got) != 1 {
			t.Errorf("records %v, want that of s", got)
		}
		for _, id := range []string{"a", "b"} {
			mustDelete(t, s, id)
		}
		if err := s.DeleteSnapshot(background, admin.DeleteSnapshot{ID: "s"}); err != nil {
			t.Error(err)
		}
		eventually(t, "the trash is emptied", func() bool { return empty(t, m) })
	})
}

// BenchmarkCommands reports the median time of commands in milliseconds.
func BenchmarkCommands(b *testing.B) {
	engines := map[string]func() string{
		"sqlite": func() string { return "sqlite3://" + filepath.Join(b.TempDir(), "meta.db") },
		"redis":  func() string { return "redis://" + startRedis(b) + "/1" },
	}
	for name, address := range engines {
		b.Run(name, func(b *testing.B) {
			f := newFileSystem(b, address())
			m := f.connect()
			s := f.serve(m)
			var creates, deletes []time.Duration
			for i := range 300 {
				id := fmt.Sprintf("v%d", i)
				began := time.Now()
				if _, err := s.CreateVolume(background, admin.CreateVolume{ID: id, CapacityBytes: 1 << 30}); err != nil {
					b.Fatal(err)
				}
				creates = append(creates, time.Since(began))
				began = time.Now()
				if err := s.DeleteVolume(background, admin.DeleteVolume{ID: id}); err != nil {
					b.Fatal(err)
				}
				deletes = append(deletes, time.Since(began))
			}
			report(b, creates, "create-ms")
			report(b, deletes, "delete-ms")
			if _, err := s.CreateVolume(background, admin.CreateVolume{ID: "big"}); err != nil {
				b.Fatal(err)
			}
			fill(b, m, "big", 10000)
			var copies []time.Duration
			for i := range 3 {
				began := time.Now()
				shot, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: fmt.Sprintf("s%d", i), SourceVolumeID: "big"})
				if err != nil || !shot.Ready {
					b.Fatal(shot, err)
				}
				copies = append(copies, time.Since(began))
			}
			report(b, copies, "snapshot-10k-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func report(b *testing.B, times []time.Duration, unit string) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, unit)
}
