package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/volume/tree"
)

// subPath is a use of a part of a volume by a container.
type subPath struct {
	volume, container string
	// index is the place in the container's volumeMounts.
	index int
	path  string
	mount Mount
}

// subject is the file or directory that a subPath leads to, open with O_PATH.
type subject struct {
	file *os.File
	dir  bool
}

// bindSubPath resolves the path once, safely, and binds what it found. The container binds that in turn, so that a
// symbolic link which somebody puts into the volume meanwhile leads nowhere else.
func (m *Manager) bindSubPath(ctx context.Context, uid types.UID, p subPath) (string, error) {
	s, err := m.openSubPath(ctx, p)
	if err != nil {
		return "", err
	}
	defer s.file.Close()
	pod := m.known(uid)
	if pod == nil {
		return "", ErrTornDown
	}
	pod.mu.Lock()
	defer pod.mu.Unlock()
	if pod.gone {
		return "", ErrTornDown
	}
	target := filepath.Join(m.PodDir(uid), subPathsDir, p.volume, p.container, strconv.Itoa(p.index))
	if err := prepareTarget(target, s.dir); err != nil {
		return "", err
	}
	return target, mountpoint.Bind(s.file, target)
}

func (m *Manager) openSubPath(ctx context.Context, p subPath) (subject, error) {
	if !p.mount.Foreign {
		return openSubject(p.mount.HostPath, p.path)
	}
	return do(ctx, m.foreign, "subPath of "+p.mount.HostPath,
		func() (subject, error) { return openSubject(p.mount.HostPath, p.path) },
		func(s subject) { s.file.Close() })
}

// openSubject opens the path below dir. What does not exist becomes a directory with the permissions of dir.
func openSubject(dir, path string) (subject, error) {
	root, err := tree.Root(dir)
	if err != nil {
		return subject{}, err
	}
	defer root.Close()
	file, err := tree.Open(root, path, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = makeSubject(root, path)
	}
	if err != nil {
		return subject{}, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return subject{}, err
	}
	return subject{file, info.IsDir()}, nil
}

func makeSubject(root *os.File, path string) (*os.File, error) {
	info, err := root.Stat()
	if err != nil {
		return nil, err
	}
	if err := tree.MakeDirs(root, path, info.Mode().Perm()); err != nil {
		return nil, err
	}
	return tree.Open(root, path, unix.O_PATH)
}

// prepareTarget makes a place to bind a directory or a file on, empty whatever was there from an earlier start.
func prepareTarget(target string, dir bool) error {
	if err := clearTarget(target); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), podMode); err != nil {
		return err
	}
	if dir {
		return os.Mkdir(target, podMode)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// clearTarget ends every mount on target and removes what they covered, which is empty.
func clearTarget(target string) error {
	points, err := mountpoint.Below(target)
	if err != nil {
		return err
	}
	if err := detachAll(points); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
