package volumes

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/sidemount/sidemount/mount/admin"
)

var background = context.Background()

func mustCreate(t *testing.T, s *Service, c admin.CreateVolume) admin.Volume {
	t.Helper()
	v, err := s.CreateVolume(background, c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustDelete(t *testing.T, s *Service, id string) {
	t.Helper()
	if err := s.DeleteVolume(background, admin.DeleteVolume{ID: id}); err != nil {
		t.Fatal(err)
	}
}

// empty tells that nothing is left but the directories of the layout.
func empty(t *testing.T, m meta.Meta) bool {
	t.Helper()
	left := tree(t, m, admin.Reserved)
	return len(left) == 5 // content, new, snapshots, trash, volumes
}

func TestAVolumeIsADirectoryWithAQuota(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		c := admin.CreateVolume{ID: "pvc-1", CapacityBytes: 123<<20 + 1}
		v := mustCreate(t, s, c)
		if v.ID != "pvc-1" || v.Path != "pvc-1" || v.CapacityBytes != c.CapacityBytes || v.Created.IsZero() {
			t.Errorf("created %+v", v)
		}
		var ino meta.Ino
		var attr meta.Attr
		if st := m.Lookup(meta.Background(), meta.RootInode, "pvc-1", &ino, &attr, false); st != 0 || attr.Mode != 0o777 || attr.Uid != 0 {
			t.Errorf("the directory is %v %o of user %d", st, attr.Mode, attr.Uid)
		}
		q := map[string]*meta.Quota{}
		if err := m.HandleQuota(meta.Background(), meta.QuotaGet, "/pvc-1", q, false, false, false); err != nil || q["/pvc-1"].MaxSpace != c.CapacityBytes {
			t.Errorf("quota %+v, %v; want exactly %d", q["/pvc-1"], err, c.CapacityBytes)
		}
		if again := mustCreate(t, s, c); again != v {
			t.Errorf("created again %+v, was %+v", again, v)
		}
		touch(t, m, "pvc-1/a/b")
		mustDelete(t, s, "pvc-1")
		if left := tree(t, m, ""); len(left) != 0 {
			t.Errorf("after deletion there is %v", left)
		}
		mustDelete(t, s, "pvc-1")
		eventually(t, "the trash is emptied", func() bool { return empty(t, m) })
		if _, err := s.Volume(background, admin.VolumeQuery{ID: "pvc-1"}); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("the volume after deletion: %v", err)
		}
	})
}

func TestTheSameIDWithOtherAttributesIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		mustCreate(t, s, admin.CreateVolume{ID: "a", CapacityBytes: 1 << 20})
		for name, c := range map[string]admin.CreateVolume{
			"capacity":    {ID: "a", CapacityBytes: 2 << 20},
			"no capacity": {ID: "a"},
			"path":        {ID: "a", CapacityBytes: 1 << 20, Path: "elsewhere"},
			"source":      {ID: "a", CapacityBytes: 1 << 20, Source: &admin.Source{VolumeID: "b"}},
		} {
			if _, err := s.CreateVolume(background, c); !errors.Is(err, admin.ErrExists) {
				t.Errorf("another %s: %v, want %v", name, err, admin.ErrExists)
			}
		}
		if want := map[string]string{"a": "d"}; !reflect.DeepEqual(tree(t, m, ""), want) {
			t.Errorf("there is %v, want %v", tree(t, m, ""), want)
		}
	})
}

func TestAVolumeThatIsBeingMadeKeepsItsPath(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		touch(t, m, "blue/data/file")
		ctx := newRequest(background)
		l, err := s.open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		first := admin.CreateVolume{ID: "a", Path: "blue/data", CapacityBytes: 1 << 20}
		r, err := newVolume(first)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.claim(ctx, l.volumes, r); err != nil { // and the first call ends before the volume is there
			t.Fatal(err)
		}
		later := first
		later.Path = "red/data"
		if v := mustCreate(t, s, later); v.Path != first.Path {
			t.Errorf("the volume is at %q, want %q", v.Path, first.Path)
		}
		if got, want := tree(t, m, ""), map[string]string{"blue": "d", "blue/data": "d", "blue/data/file": "f"}; !reflect.DeepEqual(got, want) {
			t.Errorf("there is %v, want %v", got, want)
		}
		if _, err := s.CreateVolume(background, later); !errors.Is(err, admin.ErrExists) {
			t.Errorf("another path when the volume is there: %v", err)
		}
		mustCreate(t, s, first)
	})
}

func TestPathsStayInside(t *testing.T) {
	f := newFileSystem(t, "sqlite3://"+t.TempDir()+"/meta.db")
	f.options = []string{"subdir=/tenants/one"}
	m := f.connect()
	s := f.serve(m)
	mustCreate(t, s, admin.CreateVolume{ID: "plain"})
	mustCreate(t, s, admin.CreateVolume{ID: "deep", Path: "/team/a b/ü/"})
	ctx := meta.Background()
	inner := lookup(t, m, "tenants/one")
	var ino meta.Ino
	var attr meta.Attr
	if st := m.Symlink(ctx, inner, "link", "/", &ino, &attr); st != 0 {
		t.Fatal(st)
	}
	if st := m.Symlink(ctx, inner, "link2", "../..", &ino, &attr); st != 0 {
		t.Fatal(st)
	}
	touch(t, m, "tenants/one/file")
	for path, want := range map[string]error{
		"..": admin.ErrInvalid, "a/../b": admin.ErrInvalid, "../x": admin.ErrInvalid, ".": admin.ErrInvalid, "./x": admin.ErrInvalid,
		"/": admin.ErrInvalid, "//": admin.ErrInvalid, "a//b": admin.ErrInvalid, "a\nb": admin.ErrInvalid, "a\x00b": admin.ErrInvalid,
		"a\xff": admin.ErrInvalid, "a\x7f": admin.ErrInvalid, ".sidemount": admin.ErrInvalid, ".sidemount/trash/x": admin.ErrInvalid, ".trash/x": admin.ErrInvalid,
		".config": admin.ErrInvalid, "link": admin.ErrExists, "link/x": admin.ErrInvalid, "link2/x": admin.ErrInvalid, "file": admin.ErrExists, "file/x": admin.ErrInvalid,
		"plain/x": admin.ErrInvalid, "team": admin.ErrInUse, strings.Repeat("x", 256): admin.ErrInvalid, strings.Repeat("x/", 600): admin.ErrInvalid,
	} {
		before := tree(t, m, "")
		records := tree(t, m, "tenants/one/"+admin.Reserved)
		if _, err := s.CreateVolume(background, admin.CreateVolume{ID: "bad", Path: path}); !errors.Is(err, want) {
			t.Errorf("path %q: %v, want %v", path, err, want)
		}
		if after := tree(t, m, ""); !reflect.DeepEqual(after, before) {
			t.Errorf("path %q left %v, there was %v", path, after, before)
		}
		if after := tree(t, m, "tenants/one/"+admin.Reserved); !reflect.DeepEqual(after, records) {
			t.Errorf("path %q left records %v, there was %v", path, after, records)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "-a", ".a", "a\n", "ü", strings.Repeat("x", 129)} {
		if _, err := s.CreateVolume(background, admin.CreateVolume{ID: id, Path: "fine"}); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("ID %q: %v, want %v", id, err, admin.ErrInvalid)
		}
	}
	want := map[string]string{
		"tenants": "d", "tenants/one": "d", "tenants/one/plain": "d", "tenants/one/team": "d", "tenants/one/team/a b": "d", "tenants/one/team/a b/ü": "d",
		"tenants/one/link": "f", "tenants/one/link2": "f", "tenants/one/file": "f",
	}
	if got := tree(t, m, ""); !reflect.DeepEqual(got, want) {
		t.Errorf("there is %v, want %v", got, want)
	}
}

func lookup(t *testing.T, m meta.Meta, path string) meta.Ino {
	t.Helper()
	ino := meta.RootInode
	var attr meta.Attr
	for _, part := range strings.Split(path, "/") {
		if st := m.Lookup(meta.Background(), ino, part, &ino, &attr, false); st != 0 {
			t.Fatalf("look up %s: %v", path, st)
		}
	}
	return ino
}

func TestVolumesMayShareAPath(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		for i, capacity := range []int64{10 << 20, 30 << 20, 20 << 20} {
			mustCreate(t, s, admin.CreateVolume{ID: fmt.Sprintf("v%d", i), Path: "shared/data", CapacityBytes: capacity})
		}
		touch(t, m, "shared/data/file")
		limit := func() int64 {
			q := map[string]*meta.Quota{}
			if err := m.HandleQuota(meta.Background(), meta.QuotaGet, "/shared/data", q, false, false, false); err != nil {
				return -1
			}
			return q["/shared/data"].MaxSpace
		}
		if got := limit(); got != 30<<20 {
			t.Errorf("three members have quota %d", got)
		}
		mustDelete(t, s, "v1")
		if got := limit(); got != 20<<20 {
			t.Errorf("two members have quota %d", got)
		}
		mustDelete(t, s, "v0")
		if got := tree(t, m, "")["shared/data/file"]; got != "f" {
			t.Error("the data went with the first members")
		}
		mustDelete(t, s, "v2")
		if got, want := tree(t, m, ""), map[string]string{"shared": "d"}; !reflect.DeepEqual(got, want) {
			t.Errorf("after the last member there is %v", got)
		}
	})
}

func TestADirectoryThatIsThereIsTakenOver(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		touch(t, m, "old/file")
		mustCreate(t, s, admin.CreateVolume{ID: "a", Path: "old", CapacityBytes: 1 << 20})
		if tree(t, m, "")["old/file"] != "f" {
			t.Error("its content is gone")
		}
		if _, err := s.CreateVolume(background, admin.CreateVolume{ID: "b", Path: "old", Source: &admin.Source{VolumeID: "a"}}); !errors.Is(err, admin.ErrExists) {
			t.Errorf("a copy over it: %v", err)
		}
	})
}

func TestAVolumeOfTheOtherDriverIsServed(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		const id = "pvc-01234567-89ab-cdef-0123-456789abcdef"
		touch(t, m, id+"/file")
		if err := m.HandleQuota(meta.Background(), meta.QuotaSet, "/"+id, map[string]*meta.Quota{"/" + id: {MaxSpace: 1 << 30, MaxInodes: -1}}, false, false, false); err != nil {
			t.Fatal(err)
		}
		v, err := s.Volume(background, admin.VolumeQuery{ID: id})
		if err != nil || v.CapacityBytes != 1<<30 || v.Path != id {
			t.Errorf("volume %+v, %v", v, err)
		}
		if v, err = s.ExpandVolume(background, admin.ExpandVolume{ID: id, CapacityBytes: 2 << 30}); err != nil || v.CapacityBytes != 2<<30 {
			t.Errorf("expanded %+v, %v", v, err)
		}
		mustDelete(t, s, id)
		touch(t, m, id+"/file")
		mustDelete(t, s, id)
		eventually(t, "the trash is emptied", func() bool { return empty(t, m) })
		if left := tree(t, m, ""); len(left) != 0 {
			t.Errorf("there is %v", left)
		}
		touch(t, m, "precious/file")
		mustDelete(t, s, "precious")
		if len(tree(t, m, "")) != 2 {
			t.Error("a directory that is no volume was deleted")
		}
	})
}

func TestADirectoryOfTheOtherDriverThatIsElsewhereIsLeftAndTold(t *testing.T) {
	f := newFileSystem(t, "sqlite3://"+t.TempDir()+"/meta.db")
	m := f.connect()
	s := f.serve(m)
	logger, told := logtest.NewNullLogger()
	s.o.Log = logrus.NewEntry(logger)
	const id = "pvc-01234567-89ab-cdef-0123-456789abcdef"
	touch(t, m, "tenants/"+id+"/file")
	mustDelete(t, s, id)
	if tree(t, m, "")["tenants/"+id+"/file"] != "f" {
		t.Error("it is gone")
	}
	if e := told.LastEntry(); e == nil || e.Level != logrus.WarnLevel || e.Data["volume"] != id {
		t.Errorf("the log says %v", e)
	}
	told.Reset()
	mustDelete(t, s, "never-there")
	if e := told.LastEntry(); e != nil {
		t.Errorf("of a volume that nobody has made the log says %q", e.Message)
	}
}

func TestExpandRaisesAndNeverShrinks(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		mustCreate(t, s, admin.CreateVolume{ID: "a", CapacityBytes: 5000})
		for _, step := range []struct{ ask, want int64 }{{9999, 9999}, {7000, 9999}, {9999, 9999}, {1 << 50, 1 << 50}} {
			v, err := s.ExpandVolume(background, admin.ExpandVolume{ID: "a", CapacityBytes: step.ask})
			if err != nil || v.CapacityBytes != step.want {
				t.Errorf("expanded to %d: %+v, %v; want %d", step.ask, v, err, step.want)
			}
			q := map[string]*meta.Quota{}
			if err := m.HandleQuota(meta.Background(), meta.QuotaGet, "/a", q, false, false, false); err != nil || q["/a"].MaxSpace != step.want {
				t.Errorf("expanded to %d: quota %+v, %v; want %d", step.ask, q["/a"], err, step.want)
			}
		}
		mustCreate(t, s, admin.CreateVolume{ID: "a", CapacityBytes: 5000}) // the volume that was asked for, grown since
		if _, err := s.ExpandVolume(background, admin.ExpandVolume{ID: "b", CapacityBytes: 1}); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("a volume that is not there: %v", err)
		}
	})
}

func TestTwoWorkersSetOneQuotaAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		workers := []*Service{f.service(m), f.service(f.connect())}
		for i := range 200 {
			dir := fmt.Sprintf("d%d", i)
			touch(t, m, dir+"/file")
			failed := make([]error, len(workers))
			var wg sync.WaitGroup
			for k, s := range workers {
				wg.Go(func() { failed[k] = s.setQuota(newRequest(background), "/"+dir, 1<<20) })
			}
			wg.Wait()
			if err := errors.Join(failed...); err != nil {
				t.Fatalf("directory %d: %v", i, err)
			}
			if q, err := workers[0].quota(newRequest(background), "/"+dir); err != nil || q == nil || q.MaxSpace != 1<<20 || q.UsedInodes != 1 {
				t.Fatalf("directory %d has quota %+v, %v", i, q, err)
			}
		}
	})
}

func TestSnapshotsAndCopies(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		s := f.serve(m)
		mustCreate(t, s, admin.CreateVolume{ID: "a", CapacityBytes: 1 << 30, Mode: 0o2770})
		touch(t, m, "a/dir/one")
		shot, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "s1", SourceVolumeID: "a"})
		if err != nil || !shot.Ready || shot.SourceVolumeID != "a" || shot.SizeBytes != 3*4096 {
			t.Fatalf("snapshot %+v, %v", shot, err)
		}
		touch(t, m, "a/dir/two")
		if again, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "s1", SourceVolumeID: "a"}); err != nil || again != shot {
			t.Errorf("the same snapshot again %+v, %v", again, err)
		}
		mustCreate(t, s, admin.CreateVolume{ID: "other"})
		if _, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "s1", SourceVolumeID: "other"}); !errors.Is(err, admin.ErrExists) {
			t.Errorf("the same ID of another volume: %v", err)
		}
		if _, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "s2", SourceVolumeID: "nobody"}); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("of a volume that is not there: %v", err)
		}
		v := mustCreate(t, s, admin.CreateVolume{ID: "b", CapacityBytes: 1 << 30, Source: &admin.Source{SnapshotID: "s1"}})
		if v.UsedInodes != 2 {
			t.Errorf("the restored volume uses %d inodes, want 2", v.UsedInodes)
		}
		mustCreate(t, s, admin.CreateVolume{ID: "c", Source: &admin.Source{VolumeID: "a"}})
		if _, err := s.CreateVolume(background, admin.CreateVolume{ID: "small", CapacityBytes: 4096, Source: &admin.Source{VolumeID: "a"}}); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("a copy without enough room: %v", err)
		}
		if _, err := s.CreateVolume(background, admin.CreateVolume{ID: "none", Source: &admin.Source{SnapshotID: "nothing"}}); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("a copy of nothing: %v", err)
		}
		want := map[string]string{
			"a": "d", "a/dir": "d", "a/dir/one": "f", "a/dir/two": "f", "b": "d", "b/dir": "d", "b/dir/one": "f",
			"c": "d", "c/dir": "d", "c/dir/one": "f", "c/dir/two": "f", "other": "d",
		}
		if got := tree(t, m, ""); !reflect.DeepEqual(got, want) {
			t.Errorf("there is %v, want %v", got, want)
		}
		var attr meta.Attr
		if st := m.GetAttr(meta.Background(), lookup(t, m, "b"), &attr); st != 0 || attr.Mode != 0o2770 {
			t.Errorf("the copy has mode %o, %v", attr.Mode, st)
		}
		list, err := s.Snapshots(background, admin.SnapshotsQuery{})
		if err != nil || len(list) != 1 || list[0] != shot {
			t.Errorf("snapshots %+v, %v", list, err)
		}
		for _, id := range []string{"a", "b", "c", "other"} { // the source goes first
			mustDelete(t, s, id)
		}
		for range 2 {
			if err := s.DeleteSnapshot(background, admin.DeleteSnapshot{ID: "s1"}); err != nil {
				t.Error(err)
			}
		}
		eventually(t, "the trash is emptied", func() bool { return empty(t, m) })
		if left := tree(t, m, ""); len(left) != 0 {
			t.Errorf("there is %v", left)
		}
	})
}

func TestManyVolumesAtOnceOfTwoWorkers(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m := f.connect()
		workers := []*Service{f.serve(m), f.serve(f.connect())}
		const n = 100
		var wg sync.WaitGroup
		run := func(do func(s *Service, i int) error) {
			for i := range n {
				for _, s := range workers {
					wg.Add(1)
					go func() {
						defer wg.Done()
						if err := do(s, i); err != nil && !errors.Is(err, admin.ErrBusy) {
							t.Errorf("volume %d: %v", i, err)
						}
					}()
				}
			}
			wg.Wait()
		}
		create := func(s *Service, i int) error {
			_, err := s.CreateVolume(background, admin.CreateVolume{ID: fmt.Sprintf("v%d", i), Path: fmt.Sprintf("group-%d/v%d", i%7, i), CapacityBytes: 1 << 20})
			return err
		}
		run(create)
		if got := len(tree(t, m, "")); got != n+7 {
			t.Errorf("there are %d directories, want %d", got, n+7)
		}
		if got := len(tree(t, m, admin.Reserved+"/volumes")); got != n {
			t.Errorf("there are %d records, want %d", got, n)
		}
		if left := tree(t, m, admin.Reserved+"/new"); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
		run(func(s *Service, i int) error {
			return s.DeleteVolume(background, admin.DeleteVolume{ID: fmt.Sprintf("v%d", i)})
		})
		eventually(t, "the trash is emptied", func() bool { return empty(t, m) })
		if got := len(tree(t, m, "")); got != 7 {
			t.Errorf("there are %d directories, want 7", got)
		}
	})
}

func TestCapacityIsTheFileSystems(t *testing.T) {
	f := newFileSystem(t, "sqlite3://"+t.TempDir()+"/meta.db")
	f.volume.Secret["capacity"] = "10"
	s := f.serve(f.connect())
	c, err := s.Capacity(background, admin.CapacityQuery{})
	if err != nil || c.TotalBytes != 10<<30 || c.AvailableBytes <= 0 || c.AvailableBytes >= c.TotalBytes {
		t.Errorf("capacity %+v, %v", c, err)
	}
}

func TestAForeignReservedDirectoryIsRefused(t *testing.T) {
	f := newFileSystem(t, "sqlite3://"+t.TempDir()+"/meta.db")
	m := f.connect()
	var ino meta.Ino
	var attr meta.Attr
	if st := m.Mkdir(meta.NewContext(1, 1000, []uint32{1000}), meta.RootInode, admin.Reserved, 0o777, 0, 0, &ino, &attr); st != 0 && st != syscall.EACCES {
		t.Fatal(st)
	} else if st == syscall.EACCES {
		t.Fatal("the root does not let its users write")
	}
	if _, err := f.service(m).CreateVolume(background, admin.CreateVolume{ID: "a"}); err == nil || !strings.Contains(err.Error(), "must belong to user 0") {
		t.Errorf("a tenant's own: %v", err)
	}
}
