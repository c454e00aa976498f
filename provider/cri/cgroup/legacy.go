package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// legacy is version 1: a hierarchy for each controller, in a directory of its own.
type legacy struct {
	hierarchies []string
}

// newLegacy finds the hierarchies by a file that every group has. Links such as cpu → cpu,cpuacct are left out, since they lead to
// the same. A hierarchy of version 2 beside the others, which limits nothing, is among them: runtimes make groups there too, and
// nobody else would remove them.
func newLegacy(root string) (*legacy, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	t := &legacy{}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && e.IsDir() {
			t.hierarchies = append(t.hierarchies, dir)
		}
	}
	if len(t.hierarchies) == 0 {
		return nil, fmt.Errorf("find control groups: no hierarchy is mounted below %s", root)
	}
	return t, nil
}

func (t *legacy) dirs(group string) []string {
	out := make([]string, len(t.hierarchies))
	for i, h := range t.hierarchies {
		out[i] = filepath.Join(h, group)
	}
	return out
}

func (t *legacy) create(group string, l limits) error {
	for _, h := range t.hierarchies {
		if err := makeLegacy(h, group); err != nil {
			return err
		}
		if err := writeLegacy(filepath.Join(h, group), l); err != nil {
			return err
		}
	}
	return nil
}

// makeLegacy makes the group level by level, because a group without CPUs and memory nodes, which is how cpuset makes them,
// accepts no process.
func makeLegacy(hierarchy, group string) error {
	dir := hierarchy
	for part := range strings.SplitSeq(strings.Trim(group, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inheritFile(parent, dir, file); err != nil {
				return err
			}
		}
	}
	return nil
}

func inheritFile(parent, dir, file string) error {
	own, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(own)) != "" {
		return nil
	}
	value, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	return write(dir, file, strings.TrimSpace(string(value)))
}

// writeLegacy writes what the hierarchy of dir knows. The period comes before the quota, which the kernel checks against it.
func writeLegacy(dir string, l limits) error {
	quota, memory := int64(-1), int64(-1)
	if l.quota > 0 {
		quota = l.quota
	}
	if l.memory > 0 {
		memory = l.memory
	}
	values := []value{
		{"cpu.shares", l.shares},
		{"cpu.cfs_period_us", l.period},
		{"cpu.cfs_quota_us", quota},
		{"memory.limit_in_bytes", memory},
	}
	for size, limit := range l.hugepages {
		values = append(values, value{"hugetlb." + size + ".limit_in_bytes", limit})
	}
	for _, v := range values {
		if err := writeKnown(dir, v.file, strconv.FormatInt(v.number, 10)); err != nil {
			return err
		}
	}
	return nil
}

type value struct {
	file   string
	number int64
}

// writeKnown writes a file that exists; one that does not belongs to a controller that is not there.
func writeKnown(dir, file, content string) error {
	if _, err := os.Stat(filepath.Join(dir, file)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return write(dir, file, content)
}

// write never creates the file: in a control group that would fail with a permission that is nobody's fault.
func write(dir, file, content string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}
