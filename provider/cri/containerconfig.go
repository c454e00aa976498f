package cri

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// EtcHosts is where the pod's hosts file is mounted.
const EtcHosts = "/etc/hosts"

// ContainerConfig makes the configuration of a container, field for field what a kubelet makes of it. The error matches
// ErrConfig.
func ContainerConfig(pod *corev1.Pod, c *corev1.Container, in ContainerInput) (*runtimeapi.ContainerConfig, error) {
	signal, err := stopSignal(c)
	if err != nil {
		return nil, err
	}
	annotations, err := containerAnnotations(pod, c, in)
	if err != nil {
		return nil, err
	}
	security, err := containerSecurity(pod, c, in)
	if err != nil {
		return nil, err
	}
	mounts, err := containerMounts(c, in, security)
	if err != nil {
		return nil, err
	}
	resources := ContainerResources(pod, c, in.Host)
	if in.Supervised {
		delete(resources.Unified, oomGroup)
		resources.OomScoreAdj = min(resources.OomScoreAdj, supervisorScore)
	}
	return &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: in.Attempt},
		Image:       &runtimeapi.ImageSpec{Image: in.Image.ID, UserSpecifiedImage: c.Image},
		Command:     in.Command,
		Args:        in.Args,
		WorkingDir:  c.WorkingDir,
		Envs:        environment(in.Env),
		Mounts:      mounts,
		Devices:     devices(in.Devices),
		CDIDevices:  cdiDevices(in.CDIDevices),
		Labels:      containerLabels(pod, c),
		Annotations: annotations,
		LogPath:     filepath.Join(c.Name, strconv.FormatUint(uint64(in.Attempt), 10)+".log"),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		StopSignal:  signal,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       resources,
			SecurityContext: security,
		},
	}, nil
}

func environment(vars []EnvVar) []*runtimeapi.KeyValue {
	out := make([]*runtimeapi.KeyValue, len(vars))
	for i, v := range vars {
		out[i] = &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)}
	}
	return out
}

// containerMounts are the given ones, the hosts file unless the container has its own, and the termination log.
func containerMounts(c *corev1.Container, in ContainerInput, security *runtimeapi.LinuxContainerSecurityContext) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	hosts := in.HostsFile
	for _, m := range in.Mounts {
		mount, err := bindMount(c, m, security.Privileged, in.Host)
		if err != nil {
			return nil, err
		}
		if mount.ContainerPath == EtcHosts {
			hosts = ""
		}
		out = append(out, mount)
	}
	if hosts != "" {
		// It is writable whatever the root file system is, as with a kubelet: images' entry points append to it.
		out = append(out, &runtimeapi.Mount{HostPath: hosts, ContainerPath: EtcHosts, SelinuxRelabel: in.Host.SELinux})
	}
	if in.TerminationLog != "" && c.TerminationMessagePath != "" {
		out = append(out, &runtimeapi.Mount{
			HostPath: in.TerminationLog, ContainerPath: path.Join("/", c.TerminationMessagePath), SelinuxRelabel: in.Host.SELinux,
		})
	}
	if userns := security.NamespaceOptions.UsernsOptions; len(userns.Uids) > 0 {
		for _, m := range out {
			m.UidMappings, m.GidMappings = userns.Uids, userns.Gids
		}
	}
	return out, nil
}

func bindMount(c *corev1.Container, m Mount, privileged bool, host Host) (*runtimeapi.Mount, error) {
	propagation, err := mountPropagation(m, privileged)
	if err != nil {
		return nil, misfit("mount %q of container %s: %v", m.Name, c.Name, err)
	}
	return &runtimeapi.Mount{
		ContainerPath:     path.Join("/", m.ContainerPath),
		HostPath:          m.HostPath,
		Readonly:          m.ReadOnly,
		RecursiveReadOnly: m.RecursiveReadOnly,
		SelinuxRelabel:    m.SELinuxRelabel && host.SELinux,
		Propagation:       propagation,
		Image:             m.Image,
		ImageSubPath:      m.ImageSubPath,
	}, nil
}

func mountPropagation(m Mount, privileged bool) (runtimeapi.MountPropagation, error) {
	private := m.Propagation == "" || m.Propagation == corev1.MountPropagationNone
	if m.RecursiveReadOnly && (!m.ReadOnly || !private) {
		return 0, fmt.Errorf("recursive read-only mode needs a read-only mount without propagation")
	}
	switch {
	case private:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	case m.Propagation == corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case m.Propagation == corev1.MountPropagationBidirectional && privileged:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	case m.Propagation == corev1.MountPropagationBidirectional:
		return 0, fmt.Errorf("propagation Bidirectional is available only to privileged containers")
	}
	return 0, fmt.Errorf("invalid MountPropagation mode: %q", m.Propagation)
}

func devices(list []Device) []*runtimeapi.Device {
	out := make([]*runtimeapi.Device, len(list))
	for i, d := range list {
		out[i] = &runtimeapi.Device{HostPath: d.HostPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions}
	}
	return out
}

func cdiDevices(names []string) []*runtimeapi.CDIDevice {
	out := make([]*runtimeapi.CDIDevice, len(names))
	for i, name := range names {
		out[i] = &runtimeapi.CDIDevice{Name: name}
	}
	return out
}
