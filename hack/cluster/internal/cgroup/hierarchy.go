// Package cgroup gives a cluster a subtree of its own in every cgroup hierarchy, version 1 or 2, and takes it away again.
// It does not set limits: kubelets and runtimes do that below the subtree.
package cgroup

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	// Mountpoint is absolute.
	Mountpoint string
	// Version is 1 or 2.
	Version int
	// Options selects a version 1 hierarchy when it is mounted once more: "cpu,cpuacct" or "none,name=systemd".
	Options string
}

// Set is all hierarchies of a host.
type Set []Hierarchy

// Detect reads the hierarchies that are mounted in the mount namespace of this process.
func Detect() (Set, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	set, err := parse(f)
	if err != nil {
		return nil, err
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("no cgroup file system is mounted")
	}
	return set, nil
}

// parse reads mountinfo as proc_pid_mountinfo(5) describes it. A mount point that occurs twice is one mounted over.
func parse(r io.Reader) (Set, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var set Set
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		mount, super := strings.Fields(left), strings.Fields(right)
		if !ok || len(mount) < 5 || len(super) < 3 {
			continue
		}
		h := Hierarchy{Mountpoint: mount[4]}
		switch super[0] {
		case "cgroup":
			h.Version, h.Options = 1, remountOptions(super[2])
		case "cgroup2":
			h.Version = 2
		default:
			continue
		}
		if !slices.ContainsFunc(set, func(o Hierarchy) bool { return o.Mountpoint == h.Mountpoint }) {
			set = append(set, h)
		}
	}
	return set, nil
}

// remountOptions keeps of the superblock options those that select the hierarchy: its controllers and its name.
func remountOptions(super string) string {
	var keep []string
	named, controllers := false, false
	for _, o := range strings.Split(super, ",") {
		switch {
		case o == "rw", o == "ro", o == "xattr", o == "noprefix", o == "clone_children", strings.HasPrefix(o, "release_agent="):
		case strings.HasPrefix(o, "name="):
			named, keep = true, append(keep, o)
		default:
			controllers, keep = true, append(keep, o)
		}
	}
	if named && !controllers {
		keep = append([]string{"none"}, keep...)
	}
	return strings.Join(keep, ",")
}

// Unified tells whether version 2 is the only one mounted. Next to version 1 the version 2 hierarchy holds hardly a
// controller, and its root is left alone.
func (s Set) Unified() bool {
	return !slices.ContainsFunc(s, func(h Hierarchy) bool { return h.Version == 1 })
}

// Paths returns the directory of the cgroup in each hierarchy; the name is absolute, as in /proc/PID/cgroup.
func (s Set) Paths(name string) []string {
	paths := make([]string, len(s))
	for i, h := range s {
		paths[i] = filepath.Join(h.Mountpoint, name)
	}
	return paths
}
