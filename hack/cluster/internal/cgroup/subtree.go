package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
)

// Create makes the cgroup in every hierarchy, its parents first, ready for processes and for cgroups below it. A cgroup
// that exists is left as it is.
func (s Set) Create(name string) error {
	for _, h := range s {
		dir := h.Mountpoint
		for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
			if err := s.prepareParent(h, dir); err != nil {
				return err
			}
			child := filepath.Join(dir, part)
			if err := os.Mkdir(child, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("create cgroup: %w", err)
			}
			if err := inheritCPUSet(dir, child); err != nil {
				return err
			}
			dir = child
		}
	}
	return nil
}

// prepareParent hands the controllers of a version 2 cgroup to its children. The root of a container that is not a
// cgroup root refuses while processes are in it.
func (s Set) prepareParent(h Hierarchy, dir string) error {
	if h.Version != 2 || !s.Unified() {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	for controller := range strings.FieldsSeq(string(b)) {
		if err := write(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller); err != nil {
			return fmt.Errorf("hand cgroup controller %s to the children of %s: %w", controller, dir, err)
		}
	}
	return nil
}

// inheritCPUSet fills cpus and mems of a version 1 cpuset, which are empty in a new cgroup and keep every process out.
func inheritCPUSet(parent, child string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(child, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another controller
		}
		if err == nil && strings.TrimSpace(string(have)) != "" {
			continue
		}
		want, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return fmt.Errorf("read cpuset: %w", err)
		}
		// A version 2 cpuset inherits by itself; there the file of the root does not exist or is empty.
		if v := strings.TrimSpace(string(want)); v != "" {
			if err := write(filepath.Join(child, file), v); err != nil {
				return fmt.Errorf("fill cpuset: %w", err)
			}
		}
	}
	clone := filepath.Join(child, "cgroup.clone_children")
	if _, err := os.Stat(clone); err != nil {
		return nil
	}
	return write(clone, "1") // the runtimes' own cgroups below are then filled by the kernel
}

// Join moves the process with all its threads into the cgroup in every hierarchy.
func (s Set) Join(name string, pid int) error {
	for _, dir := range s.Paths(name) {
		if err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move pid %d into cgroup: %w", pid, err)
		}
	}
	return nil
}

// Remove deletes the cgroup and all below it in every hierarchy, and waits for the last zombies to leave. Nothing to
// delete is no error.
func (s Set) Remove(ctx context.Context, name string) error {
	if strings.Trim(name, "/") == "" {
		return fmt.Errorf("refuse to remove the root cgroup")
	}
	return wait.Until(ctx, 50*time.Millisecond, func(context.Context) error {
		var errs []error
		for _, dir := range s.Paths(name) {
			errs = append(errs, removeTree(dir))
		}
		return errors.Join(errs...)
	})
}

// removeTree removes the deepest directories first. The files of a cgroup directory go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remaining lists the directories of the cgroup that exist.
func (s Set) Remaining(name string) []string {
	var found []string
	for _, dir := range s.Paths(name) {
		if _, err := os.Stat(dir); err == nil {
			found = append(found, dir)
		}
	}
	return found
}

// write opens without O_CREAT: a control file that is missing must be an error and not an ordinary file.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
