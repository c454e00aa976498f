package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseReadsWhatSelectsAHierarchy(t *testing.T) {
	const mountinfo = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
34 31 0:31 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
35 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
`
	got, err := parse(strings.NewReader(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	want := Set{
		{Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", Version: 1, Options: "cpu,cpuacct"},
		{Mountpoint: "/sys/fs/cgroup/systemd", Version: 1, Options: "none,name=systemd"},
		{Mountpoint: "/sys/fs/cgroup/unified", Version: 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parse:\n got %+v\nwant %+v", got, want)
	}
	if got.Unified() {
		t.Error("hierarchies with version 1 among them pass for unified")
	}
}

// fake makes a directory with the files of a cgroup. Unlike the kernel's, a directory made in it has no files.
func fake(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCreateHandsVersion2ControllersDown(t *testing.T) {
	dir := fake(t, map[string]string{
		"cgroup.controllers":       "cpu memory\n",
		"cgroup.subtree_control":   "",
		"a/cgroup.controllers":     "memory\n",
		"a/cgroup.subtree_control": "",
		"a/cpuset.cpus":            "",
		"cpuset.cpus.effective":    "0-1\n",
	})
	set := Set{{Mountpoint: dir, Version: 2}}
	if err := os.WriteFile(filepath.Join(dir, "cpuset.cpus"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := set.Create("/a/b"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "cgroup.subtree_control"); got != "+cpu+memory" && got != "+memory" {
		t.Errorf("subtree_control of the root is %q", got)
	}
	if got := read(t, dir, "a", "cgroup.subtree_control"); got != "+memory" {
		t.Errorf("subtree_control of the parent is %q; want +memory", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "b")); err != nil {
		t.Error(err)
	}
}

func TestCreateFillsVersion1Cpusets(t *testing.T) {
	dir := fake(t, map[string]string{
		"cpuset.cpus": "0-3\n", "cpuset.mems": "0\n",
		"a/cpuset.cpus": "\n", "a/cpuset.mems": "\n", "a/cgroup.clone_children": "0\n",
	})
	if err := (Set{{Mountpoint: dir, Version: 1, Options: "cpuset"}}).Create("/a"); err != nil {
		t.Fatal(err)
	}
	// The kernel replaces a value; a file keeps what is behind the end of a shorter one.
	if got := read(t, dir, "a", "cpuset.cpus"); !strings.HasPrefix(got, "0-3") {
		t.Errorf("cpuset.cpus is %q; want the parent's", got)
	}
	if got := read(t, dir, "a", "cgroup.clone_children"); !strings.HasPrefix(got, "1") {
		t.Errorf("clone_children is %q; want 1", got)
	}
}

func TestRemoveTakesTheWholeSubtreeAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b/c", "a/d", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	set := Set{{Mountpoint: dir, Version: 1}}
	if err := set.Remove(t.Context(), "/a"); err != nil {
		t.Fatal(err)
	}
	if left := set.Remaining("/a"); len(left) > 0 {
		t.Errorf("%v remain", left)
	}
	if err := set.Remove(t.Context(), "/a"); err != nil {
		t.Errorf("second Remove: %v", err)
	}
	if len(set.Remaining("/other")) != 1 {
		t.Error("a cgroup of somebody else is gone")
	}
	if set.Remove(t.Context(), "/") == nil {
		t.Error("the root was accepted")
	}
}
