package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// hostPath checks the path as its type demands. Without a type the path is not looked at: the runtime makes a directory if
// there is nothing, and what is there may be a file system that does not answer.
func (m *Manager) hostPath(ctx context.Context, source *corev1.HostPathVolumeSource) (Mount, error) {
	if !filepath.IsAbs(source.Path) {
		return Mount{}, fmt.Errorf("hostPath %q is not absolute: %w", source.Path, ErrUnsupported)
	}
	mount := Mount{HostPath: filepath.Clean(source.Path), Foreign: true}
	if source.Type == nil || *source.Type == corev1.HostPathUnset {
		return mount, nil
	}
	_, err := do(ctx, m.foreign, "type of "+mount.HostPath, func() (struct{}, error) {
		return struct{}{}, checkHostPath(mount.HostPath, *source.Type)
	}, nil)
	return mount, err
}

// checkHostPath follows symbolic links, as a bind mount of the path does.
func checkHostPath(path string, t corev1.HostPathType) error {
	switch t {
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make hostPath: %w", err)
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make hostPath: %w", err)
		}
	}
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hostPath type check: %w", err)
	}
	what, ok := describe(t, info)
	if what == "" {
		return fmt.Errorf("hostPath type %q: %w", t, ErrUnsupported)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", path, what)
	}
	return nil
}

// describe returns what the type wants, and whether info, nil if nothing is there, is that.
func describe(t corev1.HostPathType, info fs.FileInfo) (what string, ok bool) {
	mode := fs.ModeIrregular
	if info != nil {
		mode = info.Mode()
	}
	switch t {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return "directory", mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return "file", mode.IsRegular()
	case corev1.HostPathSocket:
		return "socket file", mode.Type() == fs.ModeSocket
	case corev1.HostPathCharDev:
		return "character device", mode.Type() == fs.ModeDevice|fs.ModeCharDevice
	case corev1.HostPathBlockDev:
		return "block device", mode.Type() == fs.ModeDevice
	}
	return "", false
}
