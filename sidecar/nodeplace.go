package sidecar

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// nodePlace is a node with a broker: everything is a directory of the host.
type nodePlace struct {
	pod     *corev1.Pod
	options InjectOptions
}

var _ place = nodePlace{}

func (nodePlace) names([]Mount) (containers, volumes []string) { return nil, nil }

func (p nodePlace) furnish([]Mount) []corev1.Container {
	addVolume(p.pod, AgentVolume(p.options.AgentDir))
	return nil
}

func (p nodePlace) session(m Mount) Place {
	return Place{SessionDir: p.options.SessionDir(m.Volume.Name)}
}

// redirect makes the pod's volume the mount point of the session, for every container that mounts it.
func (p nodePlace) redirect(m Mount) error {
	at := slices.IndexFunc(p.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Volume.Name })
	if at < 0 {
		return fmt.Errorf("inject %s: %s has no such volume", m.Volume.Name, podObject(p.pod))
	}
	// No type is asked for: to check it somebody would have to stat a FUSE file system, and might wait for ever.
	p.pod.Spec.Volumes[at].VolumeSource = hostPath(p.options.TargetDir(m.Volume.Name), corev1.HostPathUnset)
	eachMounts(p.pod, func(_ string, mounts []corev1.VolumeMount) { follow(mounts, m) })
	return nil
}

func (p nodePlace) redirected(m Mount) bool {
	return slices.ContainsFunc(p.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Volume.Name && v.HostPath != nil })
}

func (nodePlace) finish([]corev1.Container) {}

// eachMounts visits the mounts of every container of a pod.
func eachMounts(pod *corev1.Pod, visit func(container string, mounts []corev1.VolumeMount)) {
	for n := range pod.Spec.InitContainers {
		visit(pod.Spec.InitContainers[n].Name, pod.Spec.InitContainers[n].VolumeMounts)
	}
	for n := range pod.Spec.Containers {
		visit(pod.Spec.Containers[n].Name, pod.Spec.Containers[n].VolumeMounts)
	}
	for n := range pod.Spec.EphemeralContainers {
		visit(pod.Spec.EphemeralContainers[n].Name, pod.Spec.EphemeralContainers[n].VolumeMounts)
	}
}

// follow makes a container see later mounts at the target. A read-only volume is mounted read-only even where the
// container does not say so.
func follow(mounts []corev1.VolumeMount, m Mount) {
	for n := range mounts {
		if mounts[n].Name != m.Volume.Name {
			continue
		}
		receive(&mounts[n], m)
	}
}

func receive(mount *corev1.VolumeMount, m Mount) {
	mount.ReadOnly = mount.ReadOnly || m.Volume.ReadOnly
	if p := mount.MountPropagation; p == nil || *p == corev1.MountPropagationNone {
		propagation := corev1.MountPropagationHostToContainer
		mount.MountPropagation = &propagation
	}
}

func hostPath(dir string, kind corev1.HostPathType) corev1.VolumeSource {
	src := &corev1.HostPathVolumeSource{Path: dir}
	if kind != corev1.HostPathUnset {
		src.Type = &kind
	}
	return corev1.VolumeSource{HostPath: src}
}
