package mountpoint_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/volume/volumetest"
)

func TestMain(m *testing.M) { os.Exit(volumetest.Main(m)) }

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func detachLater(t *testing.T, target string) {
	t.Cleanup(func() {
		if err := mountpoint.Detach(target); err != nil {
			t.Error(err)
		}
	})
}

func TestTmpfsHasItsModeGroupAndSize(t *testing.T) {
	volumetest.NeedMounts(t)
	dir := mkdir(t, t.TempDir(), "with space")
	if on, err := mountpoint.On(dir); on || err != nil {
		t.Fatalf("before: %v, %v", on, err)
	}
	spec := mountpoint.Tmpfs{Size: 1 << 20, Mode: 0o770 | fs.ModeSetgid | fs.ModeSticky, GID: 4711, Attributes: unix.MOUNT_ATTR_NOSUID}
	if err := spec.Mount(dir); err != nil {
		t.Fatal(err)
	}
	detachLater(t, dir)
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeDir|0o770|fs.ModeSetgid|fs.ModeSticky; got != want {
		t.Errorf("mode %s, want %s", got, want)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; gid != 4711 {
		t.Errorf("group %d", gid)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize != 1<<20 || st.Type != unix.TMPFS_MAGIC {
		t.Errorf("got %d bytes of type %#x, %v", int64(st.Blocks)*st.Bsize, st.Type, err)
	}
	if st.Flags&unix.ST_NOSUID == 0 {
		t.Error("not nosuid")
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing past the size: got %v", err)
	}
	if on, err := mountpoint.On(dir); !on || err != nil {
		t.Errorf("after: %v, %v", on, err)
	}
}

func TestBindShowsTheVeryFile(t *testing.T) {
	volumetest.NeedMounts(t)
	base := t.TempDir()
	source, target := filepath.Join(base, "source"), filepath.Join(base, "target")
	for path, content := range map[string]string{source: "right", target: "", filepath.Join(base, "wrong"): "wrong"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), source)
	defer file.Close()
	// The name may change its meaning after it was opened.
	if err := os.Rename(filepath.Join(base, "wrong"), source); err != nil {
		t.Fatal(err)
	}
	if err := mountpoint.Bind(file, target); err == nil {
		detachLater(t, target)
	} else if !errors.Is(err, unix.ENOENT) { // the kernel refuses to bind what has been unlinked
		t.Fatal(err)
	}
	if got, err := os.ReadFile(target); err != nil || string(got) == "wrong" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBelowListsDeepestFirst(t *testing.T) {
	volumetest.NeedMounts(t)
	base := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(base, link); err != nil {
		t.Fatal(err)
	}
	var tmpfs mountpoint.Tmpfs
	tmpfs.Mode = 0o755
	for _, name := range []string{"a b", "a b/in\tner", "twice", "twice", "other"} {
		if err := tmpfs.Mount(mkdir(t, base, name)); err != nil {
			t.Fatal(err)
		}
	}
	points, err := mountpoint.Below(filepath.Join(link, "a b"))
	if want := []string{filepath.Join(link, "a b/in\tner"), filepath.Join(link, "a b")}; err != nil || !slices.Equal(points, want) {
		t.Errorf("got %q, %v, want %q", points, err, want)
	}
	points, err = mountpoint.Below(base)
	if err != nil || len(points) != 5 || points[0] != filepath.Join(base, "a b/in\tner") {
		t.Errorf("got %q, %v", points, err)
	}
	for _, p := range points {
		if err := mountpoint.Detach(p); err != nil {
			t.Error(err)
		}
	}
	if points, err = mountpoint.Below(base); err != nil || len(points) != 0 {
		t.Errorf("after: %q, %v", points, err)
	}
	if points, err = mountpoint.Below(filepath.Join(base, "no", "no")); err != nil || len(points) != 0 {
		t.Errorf("nothing: %q, %v", points, err)
	}
}

func TestDetachOfNothing(t *testing.T) {
	volumetest.NeedMounts(t)
	dir := t.TempDir()
	for _, p := range []string{dir, filepath.Join(dir, "no")} {
		if err := mountpoint.Detach(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}
