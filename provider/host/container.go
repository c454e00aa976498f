package host

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/logs"
	"github.com/sidemount/sidemount/provider/volume"
)

// CreateContainer implements provider.Containers: it resolves the environment and the mounts at this moment, as of the kubelet, so
// that a restarted container sees changed objects.
func (h *Host) CreateContainer(ctx context.Context, r provider.CreateRequest) (string, error) {
	in, err := h.input(ctx, r)
	if err != nil {
		return "", provider.ConfigError(err)
	}
	config, err := cri.ContainerConfig(r.Pod, r.Container, in)
	if err != nil {
		return "", provider.ConfigError(err)
	}
	sandbox, _, err := h.sandboxConfig(r.Pod, r.Sandbox.Attempt)
	if err != nil {
		return "", provider.ConfigError(err)
	}
	return h.o.Runtime.CreateContainer(ctx, r.Sandbox.ID, &cri.ContainerSpec{Config: config, Sandbox: sandbox})
}

func (h *Host) input(ctx context.Context, r provider.CreateRequest) (cri.ContainerInput, error) {
	volumes, err := h.volumesOf(ctx, r.Pod)
	if err != nil {
		return cri.ContainerInput{}, err
	}
	vars, err := env.Resolve(ctx, r.Pod, r.Container, env.Sources{
		Objects: h.o.Objects, Services: h.o.Services, Allocatable: h.o.Allocatable(),
		Addresses: env.Addresses{Pod: r.PodIPs, Host: h.o.HostIPs()},
		OpenFile: func(ctx context.Context, name, path string) (io.ReadCloser, error) {
			return h.o.Volumes.OpenFile(ctx, volumes, name, path)
		},
	})
	if err != nil {
		return cri.ContainerInput{}, err
	}
	binds, err := h.o.Volumes.Mounts(ctx, r.Pod, r.Container, volumes, vars)
	if err != nil {
		return cri.ContainerInput{}, err
	}
	image, err := h.image(ctx, r.Image)
	if err != nil {
		return cri.ContainerInput{}, err
	}
	in := cri.ContainerInput{
		Attempt: r.Attempt, Image: image, Env: variables(vars), Mounts: mounts(binds, volumes), TargetID: r.TargetID,
		SeccompRoot: h.o.SeccompRoot, SeccompDefault: h.o.SeccompDefault, Host: h.o.Machine,
		Supervised: r.Injected,
	}
	in.Command, in.Args = env.Command(r.Container, vars)
	if err := h.name(r, &in); err != nil {
		return in, err
	}
	in.TerminationLog, err = h.terminationLog(r)
	return in, err
}

func (h *Host) volumesOf(ctx context.Context, pod *corev1.Pod) (map[string]volume.Mount, error) {
	h.mu.Lock()
	volumes, ok := h.volumes[pod.UID]
	h.mu.Unlock()
	if ok {
		return volumes, nil
	}
	if err := h.SetUp(ctx, pod); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.volumes[pod.UID], nil
}

func variables(vars []env.Var) []cri.EnvVar {
	list := make([]cri.EnvVar, len(vars))
	for i, v := range vars {
		list[i] = cri.EnvVar(v)
	}
	return list
}

// mounts leaves the security labels of a file system of somebody else alone: to change them is not ours, and could take for ever.
func mounts(binds []volume.Bind, volumes map[string]volume.Mount) []cri.Mount {
	list := make([]cri.Mount, len(binds))
	for i, b := range binds {
		list[i] = cri.Mount{
			Name: b.Volume, ContainerPath: b.ContainerPath, HostPath: b.HostPath, ReadOnly: b.ReadOnly,
			RecursiveReadOnly: b.RecursiveReadOnly, Propagation: b.Propagation,
			SELinuxRelabel: !volumes[b.Volume].Foreign,
		}
	}
	return list
}

// terminationLog makes the file that the container may write its last words to, whoever it runs as.
func (h *Host) terminationLog(r provider.CreateRequest) (string, error) {
	if r.Container.TerminationMessagePath == "" {
		return "", nil
	}
	dir := filepath.Join(h.podDir(r.Pod.UID), "containers", r.Container.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make directory of container: %w", err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%d-%s", r.Attempt, r.Sandbox.ID[:min(8, len(r.Sandbox.ID))]))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return "", fmt.Errorf("make termination log: %w", err)
	}
	defer f.Close()
	// The umask has taken the write permission of others.
	if err := f.Chmod(0o666); err != nil {
		return "", fmt.Errorf("make termination log: %w", err)
	}
	return path, nil
}

// Unenforced implements provider.States.
func (h *Host) Unenforced(pod *corev1.Pod, c *corev1.Container, have cri.Container) (cpu, memory bool) {
	if have.Resources == nil {
		return false, false
	}
	want := cri.ContainerResources(pod, c, h.o.Machine)
	var limit int64
	if want.CpuQuota > 0 {
		limit = want.CpuQuota * 1000 / want.CpuPeriod
	}
	cpu = cri.MilliToShares(have.Resources.CPURequestMilli) != want.CpuShares || have.Resources.CPULimitMilli != limit
	return cpu, have.Resources.MemoryLimit != want.MemoryLimitInBytes
}

// ResizeContainer implements provider.Containers. A control group cannot allow more than the one above it, so the pod's is widened
// before and narrowed after.
func (h *Host) ResizeContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string) error {
	if h.o.Cgroups != nil {
		// If the pod's limits shrink, this may be refused; then it succeeds after the container's have shrunk.
		_, _ = h.o.Cgroups.Create(pod)
	}
	if err := h.o.Runtime.UpdateContainer(ctx, id, cri.ContainerResources(pod, c, h.o.Machine)); err != nil {
		return err
	}
	if h.o.Cgroups == nil {
		return nil
	}
	if _, err := h.o.Cgroups.Create(pod); err != nil {
		return fmt.Errorf("change control group of pod: %w", err)
	}
	return nil
}

// RemoveContainer implements provider.Containers.
func (h *Host) RemoveContainer(ctx context.Context, c cri.Container) error {
	if err := h.o.Runtime.RemoveContainer(ctx, c.ID); err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.messages, c.ID)
	h.mu.Unlock()
	if c.LogPath == "" {
		return nil
	}
	return logs.Remove(c.LogPath)
}
