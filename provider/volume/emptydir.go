package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/sidemount/sidemount/mount/mountpoint"
)

// emptyDirMode lets containers of every user write, as on a kubelet.
const emptyDirMode = fs.FileMode(0o777)

// emptyDir makes an empty directory once; it belongs to the containers from then on and is not touched again.
func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume) (Mount, error) {
	dir := m.volumeDir(pod.UID, pluginEmptyDir, v.Name)
	if err := os.MkdirAll(filepath.Dir(dir), podMode); err != nil {
		return Mount{}, err
	}
	switch v.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
		return Mount{HostPath: dir}, makeEmptyDir(dir, fsGroup(pod))
	case corev1.StorageMediumMemory:
		return Mount{HostPath: dir}, m.mountEmptyDir(dir, pod, v.EmptyDir)
	}
	return Mount{}, fmt.Errorf("emptyDir of medium %q: %w", v.EmptyDir.Medium, ErrUnsupported)
}

// makeEmptyDir lets the directory appear with its mode and group in place, so that one that exists is always complete.
func makeEmptyDir(dir string, group *int64) error {
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Volume names have no dots, so this is nobody's.
	building := dir + ".new"
	if err := os.Remove(building); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(building, 0o700); err != nil {
		return err
	}
	mode := emptyDirMode
	if group != nil {
		mode |= fs.ModeSetgid
		if err := os.Lchown(building, 0, int(*group)); err != nil {
			return err
		}
	}
	if err := os.Chmod(building, mode); err != nil {
		return err
	}
	return os.Rename(building, dir)
}

func (m *Manager) mountEmptyDir(dir string, pod *corev1.Pod, source *corev1.EmptyDirVolumeSource) error {
	tmpfs := mountpoint.Tmpfs{Size: m.memorySize(pod, source), Mode: emptyDirMode | fs.ModeSticky}
	if group := fsGroup(pod); group != nil {
		tmpfs.GID = *group
		tmpfs.Mode |= fs.ModeSetgid
	}
	return mountOnce(dir, tmpfs)
}

// mountOnce mounts on dir, which it makes, unless something is mounted there.
func mountOnce(dir string, tmpfs mountpoint.Tmpfs) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	mounted, err := mountpoint.On(dir)
	if mounted || err != nil {
		return err
	}
	return tmpfs.Mount(dir)
}

// memorySize is the least of what the node can allocate, what the pod's containers may use together, and the volume's own
// limit, in bytes; 0 if none is known.
func (m *Manager) memorySize(pod *corev1.Pod, source *corev1.EmptyDirVolumeSource) int64 {
	allocatable := m.options.Allocatable()
	size := allocatable.Memory().Value()
	lower := func(n int64) {
		if n > 0 && (size == 0 || n < size) {
			size = n
		}
	}
	if memoryLimited(pod) {
		limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
		lower(limits.Memory().Value())
	}
	if source != nil && source.SizeLimit != nil {
		lower(source.SizeLimit.Value())
	}
	return size
}

// memoryLimited tells whether the pod as a whole has a limit: its own, or one of every container.
func memoryLimited(pod *corev1.Pod) bool {
	if r := pod.Spec.Resources; r != nil && !r.Limits.Memory().IsZero() {
		return true
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Resources.Limits.Memory().IsZero() {
				return false
			}
		}
	}
	return true
}
