package payload_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sidemount/sidemount/provider/volume/payload"
)

func open(t *testing.T) (string, *os.Root) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func text(files map[string]string) payload.Files {
	f := payload.Files{}
	for p, s := range files {
		f[p] = payload.File{Data: []byte(s), Mode: 0o644}
	}
	return f
}

func write(t *testing.T, root *os.Root, f payload.Files, want bool) {
	t.Helper()
	changed, err := payload.Write(root, f, payload.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if changed != want {
		t.Errorf("changed %v, want %v", changed, want)
	}
}

// visible reads what a container sees, by the names of the volume's own left out.
func visible(t *testing.T, dir string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		real, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Errorf("%s leads nowhere: %v", e.Name(), err)
			continue
		}
		err = filepath.WalkDir(real, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			seen[e.Name()+strings.TrimPrefix(path, real)] = string(data)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	return seen
}

func versions(t *testing.T, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "..2*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestWriteReplacesTheWhole(t *testing.T) {
	dir, root := open(t)
	steps := []map[string]string{
		{"a": "1", "b": "2", "dir/deep/c": "3"},
		{"a": "1 changed", "dir/deep/c": "3", "dir/d": "4"},
		{},
		{"dir": "a file now"},
		{"dir/again": "a directory again"},
	}
	for i, files := range steps {
		write(t, root, text(files), true)
		if got := visible(t, dir); fmt.Sprint(got) != fmt.Sprint(files) {
			t.Errorf("step %d: got %v, want %v", i, got, files)
		}
		if n := versions(t, dir); n != 1 {
			t.Errorf("step %d: %d versions left", i, n)
		}
		current, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, root, text(files), false)
		if again, err := os.Readlink(filepath.Join(dir, "..data")); err != nil || again != current {
			t.Errorf("step %d: an unchanged volume was written again", i)
		}
	}
}

func TestWriteSeesEveryDifference(t *testing.T) {
	_, root := open(t)
	uid, gid := int64(1000), int64(2000)
	file := payload.File{Data: []byte("x"), Mode: 0o644}
	for name, tc := range map[string]struct {
		file  payload.File
		owner payload.Owner
	}{
		"data": {payload.File{Data: []byte("y"), Mode: 0o644}, payload.Owner{}},
		"mode": {payload.File{Data: []byte("x"), Mode: 0o600}, payload.Owner{}},
		"user": {payload.File{Data: []byte("x"), Mode: 0o644, UID: &uid}, payload.Owner{}},
		"gid":  {file, payload.Owner{GID: &gid}},
	} {
		if os.Getuid() != 0 && (tc.file.UID != nil || tc.owner.GID != nil) {
			t.Logf("%s: skipped, needs root", name)
			continue
		}
		if _, err := payload.Write(root, payload.Files{"f": file}, payload.Owner{}); err != nil {
			t.Fatal(err)
		}
		before, after := payload.Files{"f": file}, payload.Files{"f": tc.file}
		if before.Digest(payload.Owner{}) == after.Digest(tc.owner) {
			t.Errorf("%s: the same digest", name)
		}
		if changed, err := payload.Write(root, after, tc.owner); err != nil || !changed {
			t.Errorf("%s: changed %v, %v", name, changed, err)
		}
	}
}

func TestModesAndOwners(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	uid, gid := int64(1000), int64(2000)
	for name, tc := range map[string]struct {
		mode      fs.FileMode
		owner     payload.Owner
		file, dir fs.FileMode
		gid       uint32
	}{
		"as given":               {0o400, payload.Owner{}, 0o400, fs.ModeDir | 0o755, 0},
		"all bits":               {0o777, payload.Owner{}, 0o777, fs.ModeDir | 0o755, 0},
		"readable for the group": {0o400, payload.Owner{GID: &gid}, 0o440, fs.ModeDir | fs.ModeSetgid | 0o755, 2000},
		"more than readable":     {0o644, payload.Owner{GID: &gid}, 0o644, fs.ModeDir | fs.ModeSetgid | 0o755, 2000},
	} {
		t.Run(name, func(t *testing.T) {
			dir, root := open(t)
			if _, err := payload.Write(root, payload.Files{"d/f": {Mode: tc.mode, UID: &uid}}, tc.owner); err != nil {
				t.Fatal(err)
			}
			for path, want := range map[string]fs.FileMode{"d/f": tc.file, "..data/d": tc.dir, "..data/": tc.dir} {
				info, err := os.Stat(filepath.Join(dir, path))
				if err != nil || info.Mode() != want || info.Sys().(*syscall.Stat_t).Gid != tc.gid {
					t.Errorf("%s: got %v of %v, %v, want %v of %d", path, info.Mode(), info.Sys().(*syscall.Stat_t).Gid, err, want, tc.gid)
				}
			}
			if info, err := os.Stat(filepath.Join(dir, "d/f")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1000 {
				t.Errorf("user %v, %v", info.Sys(), err)
			}
		})
	}
}

func TestWriteCleansUpAfterACrash(t *testing.T) {
	dir, root := open(t)
	write(t, root, text(map[string]string{"a": "1"}), true)
	// A crash left a version half written, a link not yet renamed and one for a file that is no more.
	if err := os.MkdirAll(filepath.Join(dir, "..2020_01_01_00_00_00.1", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"..data_tmp": "..2020_01_01_00_00_00.1", "stale": "..data/stale", "theirs": "elsewhere"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root, text(map[string]string{"a": "1"}), false)
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..2") {
			names = append(names, e.Name())
		}
	}
	if want := []string{"..data", "a", "theirs"}; !slices.Equal(names, want) || versions(t, dir) != 1 {
		t.Errorf("got %v and %d versions, want %v", names, versions(t, dir), want)
	}
	if err := os.Symlink("..2020_01_01_00_00_00.1", filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	write(t, root, text(map[string]string{"a": "2"}), true)
	if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(got) != "2" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWriteFailsWithoutHarm(t *testing.T) {
	dir, root := open(t)
	write(t, root, text(map[string]string{"a": "1"}), true)
	if err := os.MkdirAll(filepath.Join(dir, "b/occupied"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := payload.Write(root, text(map[string]string{"a": "1", "b": "2"}), payload.Owner{}); err == nil {
		t.Error("want an error: b is occupied")
	}
	if _, err := os.Stat(filepath.Join(dir, "b/occupied")); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(data) != "1" {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", 256)
	for path, ok := range map[string]bool{
		"a": true, "a/b": true, "a..b": true, ".hidden": true, "a/./b": true, "...": false,
		"": false, "/a": false, "..": false, "../a": false, "..data": false, "..data/a": false, "a/../b": false, "a/..": false,
		".": false, "./": false, long: false, "a/" + long: false, strings.Repeat("a/", 2100) + "a": false, "a\x00b": false,
	} {
		err := payload.Files{path: {}}.Validate()
		if (err == nil) != ok || err != nil && !errors.Is(err, payload.ErrPath) {
			t.Errorf("%.20q: got %v, want ok %v", path, err, ok)
		}
	}
	_, root := open(t)
	if _, err := payload.Write(root, payload.Files{"../x": {}}, payload.Owner{}); !errors.Is(err, payload.ErrPath) {
		t.Errorf("Write: got %v", err)
	}
}

// A reader that opens the directory once sees one version, however often it changes meanwhile.
func TestReadersSeeOneVersion(t *testing.T) {
	dir, root := open(t)
	pair := func(n int) payload.Files {
		return text(map[string]string{"left": fmt.Sprint(n), "right": fmt.Sprint(n)})
	}
	write(t, root, pair(0), true)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					readPair(t, dir)
				}
			}
		})
	}
	for n := 1; n < 300; n++ {
		write(t, root, pair(n), true)
	}
	close(done)
	readers.Wait()
}

func readPair(t *testing.T, dir string) {
	version, err := os.OpenRoot(filepath.Join(dir, "..data"))
	if errors.Is(err, fs.ErrNotExist) {
		return // the version went between reading the link and opening it
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer version.Close()
	left, errLeft := version.ReadFile("left")
	right, errRight := version.ReadFile("right")
	if errLeft == nil && errRight == nil && string(left) != string(right) {
		t.Errorf("saw %s and %s", left, right)
	}
}

func FuzzValidate(f *testing.F) {
	for _, s := range []string{"a", "a/b", "..", "../x", "a/../b", "./a", "a//b", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if payload.Files(map[string]payload.File{path: {}}).Validate() == nil && !filepath.IsLocal(path) {
			t.Errorf("%q is taken for a path below the volume", path)
		}
	})
}
