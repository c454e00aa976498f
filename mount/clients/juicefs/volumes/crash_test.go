package volumes

import (
	"errors"
	"fmt"
	"maps"
	gopath "path"
	"reflect"
	"sync"
	"syscall"
	"testing"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// mortal is a metadata client that dies after a number of changes: nothing that its worker does later takes effect.
type mortal struct {
	meta.Meta
	mu   sync.Mutex
	left int
}

func (m *mortal) alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left--
	return m.left >= 0
}

func (m *mortal) Mkdir(ctx meta.Context, parent meta.Ino, name string, mode, cumask uint16, sgid uint8, ino *meta.Ino, attr *meta.Attr) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.Mkdir(ctx, parent, name, mode, cumask, sgid, ino, attr)
}

func (m *mortal) Mknod(ctx meta.Context, parent meta.Ino, name string, kind uint8, mode, cumask uint16, dev uint32, path string, ino *meta.Ino, attr *meta.Attr) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.Mknod(ctx, parent, name, kind, mode, cumask, dev, path, ino, attr)
}

func (m *mortal) SetAttr(ctx meta.Context, ino meta.Ino, set uint16, clear uint8, attr *meta.Attr) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.SetAttr(ctx, ino, set, clear, attr)
}

func (m *mortal) SetXattr(ctx meta.Context, ino meta.Ino, name string, value []byte, flags uint32) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.SetXattr(ctx, ino, name, value, flags)
}

func (m *mortal) RemoveXattr(ctx meta.Context, ino meta.Ino, name string) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.RemoveXattr(ctx, ino, name)
}

func (m *mortal) Rename(ctx meta.Context, from meta.Ino, name string, to meta.Ino, as string, flags uint32, ino *meta.Ino, attr *meta.Attr) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.Rename(ctx, from, name, to, as, flags, ino, attr)
}

func (m *mortal) Unlink(ctx meta.Context, parent meta.Ino, name string, skip ...bool) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.Unlink(ctx, parent, name, skip...)
}

func (m *mortal) Clone(ctx meta.Context, sp, s, dp meta.Ino, name string, mode uint8, cumask uint16, count, total *uint64) syscall.Errno {
	if !m.alive() {
		return syscall.EIO
	}
	return m.Meta.Clone(ctx, sp, s, dp, name, mode, cumask, count, total)
}

func (m *mortal) HandleQuota(ctx meta.Context, cmd uint8, path string, quotas map[string]*meta.Quota, strict, repair, create bool) error {
	if cmd != meta.QuotaGet && !m.alive() {
		return errors.New("gone")
	}
	return m.Meta.HandleQuota(ctx, cmd, path, quotas, strict, repair, create)
}

// command is one that a worker may die in, on a file system that prepare has filled.
type command struct {
	name    string
	prepare func(t *testing.T, s *Service)
	run     func(s *Service) error
	// undo is the command that a caller gives instead when it has lost interest.
	undo func(s *Service) error
}

func create(s *Service, c admin.CreateVolume) error {
	_, err := s.CreateVolume(background, c)
	return err
}

func remove(s *Service, id string) error {
	return s.DeleteVolume(background, admin.DeleteVolume{ID: id})
}

var commands = []command{{
	name:    "create",
	prepare: func(*testing.T, *Service) {},
	run: func(s *Service) error {
		return create(s, admin.CreateVolume{ID: "new", Path: "x/y", CapacityBytes: 1 << 20})
	},
	undo: func(s *Service) error { return remove(s, "new") },
}, {
	name: "create at a shared path",
	prepare: func(t *testing.T, s *Service) {
		mustCreate(t, s, admin.CreateVolume{ID: "old", Path: "x", CapacityBytes: 1 << 20})
	},
	run: func(s *Service) error {
		return create(s, admin.CreateVolume{ID: "new", Path: "x", CapacityBytes: 2 << 20})
	},
	undo: func(s *Service) error { return remove(s, "new") },
}, {
	name: "create from a snapshot",
	prepare: func(t *testing.T, s *Service) {
		mustCreate(t, s, admin.CreateVolume{ID: "old", CapacityBytes: 1 << 20})
		if _, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "shot", SourceVolumeID: "old"}); err != nil {
			t.Fatal(err)
		}
	},
	run: func(s *Service) error {
		return create(s, admin.CreateVolume{ID: "new", CapacityBytes: 1 << 20, Source: &admin.Source{SnapshotID: "shot"}})
	},
	undo: func(s *Service) error { return remove(s, "new") },
}, {
	name:    "snapshot",
	prepare: func(t *testing.T, s *Service) { mustCreate(t, s, admin.CreateVolume{ID: "old"}) },
	run: func(s *Service) error {
		_, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "shot", SourceVolumeID: "old"})
		return err
	},
	undo: func(s *Service) error { return s.DeleteSnapshot(background, admin.DeleteSnapshot{ID: "shot"}) },
}, {
	name: "expand",
	prepare: func(t *testing.T, s *Service) {
		mustCreate(t, s, admin.CreateVolume{ID: "old", CapacityBytes: 1 << 20})
	},
	run: func(s *Service) error {
		_, err := s.ExpandVolume(background, admin.ExpandVolume{ID: "old", CapacityBytes: 2 << 20})
		return err
	},
}, {
	name: "delete",
	prepare: func(t *testing.T, s *Service) {
		mustCreate(t, s, admin.CreateVolume{ID: "old", Path: "x/y", CapacityBytes: 1 << 20})
	},
	run: func(s *Service) error { return remove(s, "old") },
}, {
	name: "delete at a shared path",
	prepare: func(t *testing.T, s *Service) {
		mustCreate(t, s, admin.CreateVolume{ID: "old", Path: "x", CapacityBytes: 2 << 20})
		mustCreate(t, s, admin.CreateVolume{ID: "other", Path: "x", CapacityBytes: 1 << 20})
	},
	run: func(s *Service) error { return remove(s, "old") },
}, {
	name: "delete a snapshot",
	prepare: func(t *testing.T, s *Service) {
		mustCreate(t, s, admin.CreateVolume{ID: "old"})
		if _, err := s.CreateSnapshot(background, admin.CreateSnapshot{ID: "shot", SourceVolumeID: "old"}); err != nil {
			t.Fatal(err)
		}
	},
	run: func(s *Service) error { return s.DeleteSnapshot(background, admin.DeleteSnapshot{ID: "shot"}) },
}}

// TestAWorkerMayDieBetweenAnyTwoSteps lets a worker die after each number of changes to the metadata, and another one be given the
// same command, or the opposite one.
func TestAWorkerMayDieBetweenAnyTwoSteps(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		for i, c := range commands {
			t.Run(c.name, func(t *testing.T) {
				f.t = t
				f.options = nil
				m := f.connect()
				where := func(kind string, n int) string { return fmt.Sprintf("case-%d-%s-%d", i, kind, n) }
				open := func(m meta.Meta, dir string) *Service {
					f.options = []string{"subdir=" + dir}
					return f.service(m)
				}
				before, after := outcome(t, m, open(m, where("before", 0)), c, false), outcome(t, m, open(m, where("after", 0)), c, true)
				died := 0
				for n := range 100 {
					dir := where("again", n)
					c.prepare(t, open(m, dir))
					err := c.run(open(&mortal{Meta: m, left: n}, dir))
					if err == nil {
						break
					}
					died++
					if !errors.Is(err, mount.ErrUnavailable) {
						t.Errorf("death after %d changes: %v", n, err)
					}
					survivor := open(m, dir)
					if err := c.run(survivor); err != nil {
						t.Errorf("again after %d changes: %v", n, err)
					}
					settle(t, survivor)
					if got := everything(t, m, survivor); !reflect.DeepEqual(got, after) {
						t.Errorf("again after %d changes: there is %v, want %v", n, got, after)
					}
					if c.undo == nil {
						continue
					}
					dir = where("undo", n)
					c.prepare(t, open(m, dir))
					_ = c.run(open(&mortal{Meta: m, left: n}, dir))
					survivor = open(m, dir)
					if err := c.undo(survivor); err != nil {
						t.Errorf("undone after %d changes: %v", n, err)
					}
					settle(t, survivor)
					got, want := everything(t, m, survivor), maps.Clone(before)
					if want["x"] == "" && got["x"] == "d" {
						delete(got, "x") // a directory above a volume stays
					}
					if !reflect.DeepEqual(got, want) {
						t.Errorf("undone after %d changes: there is %v, want %v", n, got, want)
					}
				}
				if died < 3 || died > 90 {
					t.Errorf("the worker died %d times", died)
				}
			})
		}
	})
}

// outcome is the state that a command brings about, or finds.
func outcome(t *testing.T, m meta.Meta, s *Service, c command, run bool) map[string]string {
	t.Helper()
	c.prepare(t, s)
	if run {
		if err := c.run(s); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, s)
	return everything(t, m, s)
}

// settle empties the trash as a worker does that opens the file system.
func settle(t *testing.T, s *Service) {
	t.Helper()
	swept := false
	if err := s.round(background, &swept); err != nil {
		t.Errorf("emptying the trash: %v", err)
	}
}

// everything is what counts below a Service's directory: names, records' states, members, quotas.
func everything(t *testing.T, m meta.Meta, s *Service) map[string]string {
	t.Helper()
	all := tree(t, m, s.o.Subdir)
	maps.Copy(all, prefixed(admin.Reserved+"/", tree(t, m, s.o.Subdir+"/"+admin.Reserved)))
	ctx := meta.Background()
	for path, kind := range all {
		ino := lookup(t, m, s.o.Subdir+"/"+path)
		ids, err := s.memberIDs(ctx, ino)
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		if st := m.GetXattr(ctx, ino, recordAttr, &text); st == 0 {
			l, err := s.open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range []meta.Ino{l.volumes, l.snapshots} {
				if r, err := s.readRecord(ctx, dir, gopath.Base(path)); err == nil && r != nil {
					kind += fmt.Sprintf(" %s %s %d %d", r.State, r.Path, r.Capacity, r.Size)
				}
			}
		}
		q, err := s.quota(ctx, s.absolute(path))
		if kind == "d" && err != nil {
			t.Fatal(err)
		}
		if q != nil {
			kind += fmt.Sprintf(" quota %d used %d inodes %d", q.MaxSpace, q.UsedSpace, q.UsedInodes)
		}
		if len(ids) > 0 && path != admin.Reserved+"/content/shot" {
			kind += fmt.Sprint(" members ", ids)
		}
		all[path] = kind
	}
	return all
}

func prefixed(prefix string, all map[string]string) map[string]string {
	out := make(map[string]string, len(all))
	for k, v := range all {
		out[prefix+k] = v
	}
	return out
}

// TestJoiningAndLeavingAtOnce lets one worker delete the last volume at a path while another makes one there.
func TestJoiningAndLeavingAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fileSystem) {
		m, n := f.connect(), f.connect()
		one, two := f.serve(m), f.serve(n)
		const rounds = 60
		mustCreate(t, one, admin.CreateVolume{ID: "v0", Path: "shared"})
		for i := range rounds {
			old, fresh := fmt.Sprintf("v%d", i), fmt.Sprintf("v%d", i+1)
			var wg sync.WaitGroup
			wg.Add(2)
			go func() {
				defer wg.Done()
				if err := remove(one, old); err != nil {
					t.Errorf("delete %s: %v", old, err)
				}
			}()
			go func() {
				defer wg.Done()
				err := create(two, admin.CreateVolume{ID: fresh, Path: "shared"})
				for range 10 {
					if !errors.Is(err, admin.ErrBusy) {
						break
					}
					err = create(two, admin.CreateVolume{ID: fresh, Path: "shared"})
				}
				if err != nil {
					t.Errorf("create %s: %v", fresh, err)
				}
			}()
			wg.Wait()
			ids, err := one.memberIDs(meta.Background(), lookup(t, m, "shared"))
			if err != nil || !reflect.DeepEqual(ids, []string{fresh}) {
				t.Fatalf("round %d: members %v, %v; want %s", i, ids, err, fresh)
			}
		}
		mustDelete(t, two, fmt.Sprintf("v%d", rounds))
		eventually(t, "the trash is emptied", func() bool { return empty(t, m) })
		if left := tree(t, m, ""); len(left) != 0 {
			t.Errorf("there is %v", left)
		}
	})
}
