package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	controllersFile = "cgroup.controllers"
	subtreeFile     = "cgroup.subtree_control"
)

// wantedControllers are those that pods or containers are limited by.
var wantedControllers = []string{"cpu", "cpuset", "io", "memory", "hugetlb", "pids"}

// unified is version 2: one hierarchy.
type unified struct {
	root string
}

func (t *unified) dirs(group string) []string {
	return []string{filepath.Join(t.root, group)}
}

// create makes the group level by level and passes the controllers on to each next one. The pod's own group passes them on too,
// or the runtime could not limit containers.
func (t *unified) create(group string, l limits) error {
	dir := t.root
	if err := passControllers(dir); err != nil {
		return err
	}
	for part := range strings.SplitSeq(strings.Trim(group, "/"), "/") {
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := passControllers(dir); err != nil {
			return err
		}
	}
	return writeUnified(dir, l)
}

// passControllers enables those of the wanted controllers that are available and not yet enabled.
func passControllers(dir string) error {
	available, err := fields(dir, controllersFile)
	if err != nil {
		return err
	}
	enabled, err := fields(dir, subtreeFile)
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range wantedControllers {
		if slices.Contains(available, c) && !slices.Contains(enabled, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := write(dir, subtreeFile, strings.Join(missing, " ")); err != nil {
		return fmt.Errorf("enable controllers %s: %w", strings.Join(missing, " "), err)
	}
	return nil
}

func fields(dir, file string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	return strings.Fields(string(data)), err
}

func writeUnified(dir string, l limits) error {
	quota, memory := "max", "max"
	if l.quota > 0 {
		quota = strconv.FormatInt(l.quota, 10)
	}
	if l.memory > 0 {
		memory = strconv.FormatInt(l.memory, 10)
	}
	files := map[string]string{
		"cpu.weight": strconv.FormatInt(weight(l.shares), 10),
		"cpu.max":    fmt.Sprintf("%s %d", quota, l.period),
		"memory.max": memory,
	}
	for size, limit := range l.hugepages {
		files["hugetlb."+size+".max"] = strconv.FormatInt(limit, 10)
	}
	for file, content := range files {
		if err := writeKnown(dir, file, content); err != nil {
			return err
		}
	}
	return nil
}

// weight converts shares to the weight of version 2 by the curve that runtimes use, through the least, the default and the
// greatest of both: 2 → 1, 1024 → 100, 262144 → 10000.
func weight(shares int64) int64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}
