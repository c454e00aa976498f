package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/volume/payload"
)

// filesMode is that of the root of a volume of files: containers read it, only the node writes.
const filesMode = fs.FileMode(0o755)

// content is what a volume of files shows, and when to look again without being told.
type content struct {
	files payload.Files
	due   time.Time
}

// files is how a volume of files is made.
type files struct {
	plugin string
	// memory keeps the content off the disk.
	memory bool
	// read returns the content as it is to be now.
	read func(ctx context.Context) (content, error)
}

// filesOf returns how to make v, or an ErrUnsupported error that says why it is not made.
func (m *Manager) filesOf(pod *corev1.Pod, v *corev1.Volume) (files, error) {
	r := &reader{manager: m, pod: pod, volume: v.Name}
	switch {
	case v.ConfigMap != nil:
		return files{pluginConfigMap, false, func(ctx context.Context) (content, error) { return r.configMapVolume(ctx, v.ConfigMap) }}, nil
	case v.Secret != nil:
		return files{pluginSecret, true, func(ctx context.Context) (content, error) { return r.secretVolume(ctx, v.Secret) }}, nil
	case v.DownwardAPI != nil:
		return files{pluginDownwardAPI, true, func(context.Context) (content, error) { return r.downwardVolume(v.DownwardAPI) }}, nil
	case v.Projected != nil:
		return files{pluginProjected, true, func(ctx context.Context) (content, error) { return r.projected(ctx, v.Projected) }}, nil
	}
	return files{}, unsupported(v)
}

// setUpFiles makes the volume show its content, unless known says that it does.
func (m *Manager) setUpFiles(ctx context.Context, pod *corev1.Pod, name string, f files, known [sha256.Size]byte) made {
	current, err := f.read(ctx)
	if err != nil {
		return made{err: err}
	}
	owner := payload.Owner{GID: fsGroup(pod)}
	result := made{
		mount:  Mount{HostPath: m.volumeDir(pod.UID, f.plugin, name), ReadOnly: true},
		digest: current.files.Digest(owner),
		due:    current.due,
	}
	if result.digest == known {
		return result
	}
	if result.err = m.filesRoot(result.mount.HostPath, pod, f.memory, owner); result.err != nil {
		return result
	}
	root, err := os.OpenRoot(result.mount.HostPath)
	if err != nil {
		return made{err: err}
	}
	defer func() { _ = root.Close() }()
	if _, err := payload.Write(root, current.files, owner); err != nil {
		return made{err: fmt.Errorf("write: %w", err)}
	}
	if err := nest(root, pod, name); err != nil {
		return made{err: err}
	}
	return result
}

// filesRoot makes the directory that the files lie in, in memory if they must not reach the disk.
func (m *Manager) filesRoot(dir string, pod *corev1.Pod, memory bool, owner payload.Owner) error {
	if err := os.MkdirAll(filepath.Dir(dir), podMode); err != nil {
		return err
	}
	mode, group := filesMode, int64(0)
	if owner.GID != nil {
		mode, group = filesMode|fs.ModeSetgid, *owner.GID
	}
	if memory {
		return mountOnce(dir, mountpoint.Tmpfs{
			Size: m.memorySize(pod, nil), Mode: mode, GID: group, Attributes: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		})
	}
	if err := os.Mkdir(dir, filesMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Lchown(dir, 0, int(group)); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}
