package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// parentDir is where systemd, Docker and everyone else mount the hierarchies.
const parentDir = "/sys/fs/cgroup"

// Remount replaces all cgroup mounts of the mount namespace of the calling thread by new ones. After the thread has
// entered a new cgroup namespace, the new mounts show its root as "/", so that nothing started here can make a cgroup
// outside of it, whatever path it asks for; the old mounts would still show the whole host.
func (s Set) Remount() error {
	links, err := symlinks(parentDir)
	if err != nil {
		return err
	}
	for { // mounts may lie over each other
		if err := unix.Unmount(parentDir, unix.MNT_DETACH); errors.Is(err, unix.EINVAL) {
			break
		} else if err != nil {
			return fmt.Errorf("unmount %s: %w", parentDir, err)
		}
	}
	if !s.Unified() || s[0].Mountpoint != parentDir {
		if err := unix.Mount("tmpfs", parentDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", parentDir, err)
		}
	}
	for _, h := range s {
		if err := h.mount(); err != nil {
			return err
		}
	}
	for name, target := range links { // "cpu" -> "cpu,cpuacct" and the like
		if err := os.Symlink(target, filepath.Join(parentDir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func (h Hierarchy) mount() error {
	if h.Mountpoint != parentDir && !strings.HasPrefix(h.Mountpoint, parentDir+"/") {
		return nil // a second mount somewhere else, which nobody looks for
	}
	if err := os.MkdirAll(h.Mountpoint, 0o755); err != nil {
		return err
	}
	fstype := "cgroup"
	if h.Version == 2 {
		fstype = "cgroup2"
	}
	if err := unix.Mount(fstype, h.Mountpoint, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.Options); err != nil {
		return fmt.Errorf("mount %s with %q on %s: %w", fstype, h.Options, h.Mountpoint, err)
	}
	return nil
}

func symlinks(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, e := range entries {
		if e.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			found[e.Name()] = target
		}
	}
	return found, nil
}
