package tree_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/volume/tree"
	"github.com/sidemount/sidemount/provider/volume/volumetest"
)

func TestMain(m *testing.M) { os.Exit(volumetest.Main(m)) }

// volume makes a directory with an attacker's links in it, next to a secret outside.
func volume(t *testing.T) (dir string, root *os.File) {
	t.Helper()
	base := t.TempDir()
	dir = filepath.Join(base, "volume")
	for _, d := range []string{"volume/dir", "outside"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"volume/dir/file", "outside/secret"} {
		if err := os.WriteFile(filepath.Join(base, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"inside": "dir/file", "up": "../outside", "absolute": filepath.Join(base, "outside"), "self": "self",
		"etc": "/etc", "magic": "/proc/self/root", "round": "dir/../../volume/dir", "dangling": "missing/x",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Root(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestOpenStaysBelow(t *testing.T) {
	_, root := volume(t)
	for name, want := range map[string]error{
		"dir/file": nil, "inside": nil, ".": nil, "dir/../dir/file": nil,
		"..": tree.ErrEscape, "../outside/secret": tree.ErrEscape, "up/secret": tree.ErrEscape, "absolute/secret": tree.ErrEscape,
		"/etc/passwd": tree.ErrEscape, "etc/passwd": tree.ErrEscape, "magic": tree.ErrEscape, "round/file": tree.ErrEscape,
		"self": unix.ELOOP, "missing": fs.ErrNotExist, "dangling": fs.ErrNotExist, "dir/file/x": unix.ENOTDIR,
	} {
		file, err := tree.Open(root, name, unix.O_PATH)
		if file != nil {
			file.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

func TestMakeDirs(t *testing.T) {
	dir, root := volume(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	if err := os.Chmod(filepath.Join(dir, "dir"), 0o755|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := tree.MakeDirs(root, "dir/new/deep", 0o777); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"dir/new", "dir/new/deep"} {
		info, err := os.Stat(filepath.Join(dir, d))
		if want := fs.ModeDir | fs.ModeSetgid | 0o777; err != nil || info.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", d, info.Mode(), err, want)
		}
	}
	if err := tree.MakeDirs(root, "plain", 0o750); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "plain")); err != nil || info.Mode() != fs.ModeDir|0o750 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"up/new", "absolute/new", "../new", "/tmp/new"} {
		if err := tree.MakeDirs(root, name, 0o777); !errors.Is(err, tree.ErrEscape) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "../outside/new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made outside: %v", err)
	}
}

func TestRemoveLeavesWhatLinksLeadTo(t *testing.T) {
	dir, _ := volume(t)
	if err := tree.Remove(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "../outside/secret")); err != nil {
		t.Error(err)
	}
	for _, gone := range []string{dir, filepath.Join(dir, "below")} {
		if err := tree.Remove(t.Context(), gone); err != nil {
			t.Errorf("again: %v", err)
		}
	}
}

func TestRemoveOfADeepTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const depth = 3000 // more than descriptors or a path could hold
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range depth {
		name := strings.Repeat("d", 1+i%3)
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		_ = unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	_ = unix.Close(fd)
	if u, err := tree.Measure(t.Context(), dir); err != nil || u.Inodes < 200 {
		t.Errorf("measured %v, %v", u, err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := before
	low.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	if err := tree.Remove(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestRemoveNeverCrossesAMount(t *testing.T) {
	volumetest.NeedMounts(t)
	for name, mount := range map[string]func(t *testing.T, source, target string){
		"another file system": func(t *testing.T, source, target string) {
			if err := (mountpoint.Tmpfs{Mode: 0o755}).Mount(target); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(target, "kept"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a bind of the same file system": func(t *testing.T, source, target string) {
			root, err := tree.Root(source)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if err := mountpoint.Bind(root, target); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, source := filepath.Join(base, "dir"), filepath.Join(base, "source")
			target := filepath.Join(dir, "sub/target")
			for _, d := range []string{target, source} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(source, "kept"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			mount(t, source, target)
			err := tree.Remove(t.Context(), dir)
			if !errors.Is(err, tree.ErrMounted) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(filepath.Join(target, "kept")); err != nil {
				t.Errorf("behind the mount: %v", err)
			}
			if err := mountpoint.Detach(target); err != nil {
				t.Fatal(err)
			}
			if err := tree.Remove(t.Context(), dir); err != nil {
				t.Errorf("after unmounting: %v", err)
			}
		})
	}
}

func TestRemoveHeedsItsContext(t *testing.T) {
	dir, _ := volume(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tree.Remove(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/file"), make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	u, err := tree.Measure(t.Context(), dir)
	if err != nil || u.Inodes != 4 || u.Bytes < 100_000 || u.Bytes > 300_000 {
		t.Errorf("got %+v, %v", u, err)
	}
}
