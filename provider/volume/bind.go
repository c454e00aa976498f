package volume

import (
	"context"
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/env"
)

// Mounts returns what the container binds, in the order of its volumeMounts. volumes is what SetUp returned, vars the
// container's environment, for subPathExpr. It is to be called before each start of the container: a subPath is resolved
// anew and bound to a place of its own, where nothing inside the volume can change what the container gets. Everything so
// bound lasts until Unbind or TearDown.
func (m *Manager) Mounts(ctx context.Context, pod *corev1.Pod, c *corev1.Container, volumes map[string]Mount, vars []env.Var) ([]Bind, error) {
	if len(c.VolumeDevices) > 0 {
		return nil, fmt.Errorf("volumeDevices of container %q: raw block volumes: %w", c.Name, ErrUnsupported)
	}
	if err := checkName("container", c.Name); err != nil {
		return nil, err
	}
	binds := make([]Bind, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		b, err := m.bind(ctx, pod, c, i, volumes, vars)
		if err != nil {
			return nil, err
		}
		binds = append(binds, b)
	}
	return binds, nil
}

func (m *Manager) bind(ctx context.Context, pod *corev1.Pod, c *corev1.Container, i int, volumes map[string]Mount, vars []env.Var) (Bind, error) {
	vm := c.VolumeMounts[i]
	mount, ok := volumes[vm.Name]
	if !ok {
		return Bind{}, fmt.Errorf("cannot find volume %q to mount into container %q", vm.Name, c.Name)
	}
	recursive, err := m.recursiveReadOnly(pod, vm)
	if err != nil {
		return Bind{}, err
	}
	b := Bind{
		Volume:            vm.Name,
		HostPath:          mount.HostPath,
		ContainerPath:     path.Clean("/" + vm.MountPath),
		ReadOnly:          vm.ReadOnly || mount.ReadOnly,
		RecursiveReadOnly: recursive,
		Propagation:       corev1.MountPropagationNone,
	}
	if vm.MountPropagation != nil {
		b.Propagation = *vm.MountPropagation
	}
	sub, err := env.SubPath(vm, vars)
	if err != nil || sub == "" {
		return b, err
	}
	if err := checkSubPath(sub); err != nil {
		return Bind{}, err
	}
	b.HostPath, err = m.bindSubPath(ctx, pod.UID, subPath{volume: vm.Name, container: c.Name, index: i, path: sub, mount: mount})
	if err != nil {
		return Bind{}, fmt.Errorf("prepare subPath for volumeMount %q of container %q: %w", vm.Name, c.Name, err)
	}
	return b, nil
}

func checkSubPath(sub string) error {
	if path.IsAbs(sub) {
		return fmt.Errorf("subPath %q must not be an absolute path: %w", sub, ErrEscape)
	}
	for segment := range strings.SplitSeq(sub, "/") {
		if segment == ".." {
			return fmt.Errorf("subPath %q must not contain '..': %w", sub, ErrEscape)
		}
	}
	return nil
}

// recursiveReadOnly applies the rules of core/v1 VolumeMount.recursiveReadOnly.
func (m *Manager) recursiveReadOnly(pod *corev1.Pod, vm corev1.VolumeMount) (bool, error) {
	if vm.RecursiveReadOnly == nil || *vm.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	if !vm.ReadOnly {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only: %w", vm.Name, ErrUnsupported)
	}
	if vm.MountPropagation != nil && *vm.MountPropagation != corev1.MountPropagationNone {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q: %w",
			vm.Name, *vm.MountPropagation, ErrUnsupported)
	}
	possible := m.options.RecursiveReadOnly(pod)
	switch *vm.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyIfPossible:
		return possible, nil
	case corev1.RecursiveReadOnlyEnabled:
		if possible {
			return true, nil
		}
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime: %w", vm.Name, ErrUnsupported)
	}
	return false, fmt.Errorf("recursive read-only mode %q of volume %q: %w", *vm.RecursiveReadOnly, vm.Name, ErrUnsupported)
}
