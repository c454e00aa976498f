package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memory is a file system in memory, at a path that host and cluster share. Each run has one of its own, so that what a killed one has left is in nobody's way.
type memory struct{ root string }

func newMemory() (*memory, error) {
	const size = "size=4g,mode=755"
	root, err := os.MkdirTemp("/var/lib", "sidemount-io-")
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, size); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a file system in memory at %s: %w", root, err), os.Remove(root))
	}
	return &memory{root}, nil
}

func (m *memory) path(name string) string { return filepath.Join(m.root, name) }

func (m *memory) remove() error {
	return errors.Join(unix.Unmount(m.root, unix.MNT_DETACH), os.Remove(m.root))
}
