package sidecar

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// agentVolume is shared by all sidecars of a pod.
const agentVolume = prefix + "bin"

// Names of the volumes of one sidecar.
func sessionVolume(volume string) string { return dnsLabel(prefix + "session-" + volume) }
func tmpVolume(volume string) string     { return dnsLabel(prefix + "tmp-" + volume) }
func cacheVolume(volume string, n int) string {
	return dnsLabel(prefix + "cache-" + strconv.Itoa(n) + "-" + volume)
}
func hostVolume(volume string, n int) string {
	return dnsLabel(prefix + "host-" + strconv.Itoa(n) + "-" + volume)
}

// volumeNames are the volumes that a Mount adds to the pod.
func volumeNames(m Mount) []string {
	names := []string{sessionVolume(m.Volume.Name), tmpVolume(m.Volume.Name)}
	for n := range m.Caches {
		names = append(names, cacheVolume(m.Volume.Name, n))
	}
	for n := range m.HostPaths {
		names = append(names, hostVolume(m.Volume.Name, n))
	}
	return names
}

// sidecar builds the container and adds its volumes to the pod. What the API server would fill in is written out, as the
// node's copy never passes through it.
func (i injector) sidecar(m Mount) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	return corev1.Container{
		Name:                     ContainerName(m.Volume.Name),
		Image:                    m.Image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Command:                  append([]string{AgentPath, "run", "--"}, m.Argv...),
		Resources:                *m.Resources.DeepCopy(),
		RestartPolicy:            &always,
		SecurityContext:          i.securityContext(m),
		VolumeMounts:             i.volumeMounts(m),
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// securityContext sets every field that the sidecar would otherwise take over from the pod.
func (i injector) securityContext(m Mount) *corev1.SecurityContext {
	nonRoot, no, yes := m.UID != 0, false, true
	sc := &corev1.SecurityContext{
		RunAsUser:                &m.UID,
		RunAsGroup:               &m.GID,
		RunAsNonRoot:             &nonRoot,
		Privileged:               &no,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	// AppArmor is asked for only where the pod proves that the node has it.
	if pod := i.pod.Spec.SecurityContext; pod != nil && pod.AppArmorProfile != nil {
		sc.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	}
	return sc
}

// volumeMounts lists what the sidecar sees of the node: the agent, its session and what the volume names.
func (i injector) volumeMounts(m Mount) []corev1.VolumeMount {
	name := m.Volume.Name
	i.volume(corev1.Volume{Name: sessionVolume(name), VolumeSource: hostPath(i.options.SessionDir(name), corev1.HostPathDirectory)})
	mounts := []corev1.VolumeMount{
		{Name: agentVolume, MountPath: AgentMount, ReadOnly: true},
		{Name: sessionVolume(name), MountPath: SessionMount, ReadOnly: true},
	}
	if !slices.Contains(m.HostPaths, scratch) && !slices.ContainsFunc(m.Caches, func(c Cache) bool { return c.Path == scratch }) {
		i.volume(corev1.Volume{Name: tmpVolume(name), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		mounts = append(mounts, corev1.VolumeMount{Name: tmpVolume(name), MountPath: scratch})
	}
	for n, c := range m.Caches {
		i.volume(corev1.Volume{Name: cacheVolume(name, n), VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{Medium: c.Medium, SizeLimit: c.SizeLimit},
		}})
		mounts = append(mounts, corev1.VolumeMount{Name: cacheVolume(name, n), MountPath: c.Path})
	}
	for n, dir := range m.HostPaths {
		i.volume(corev1.Volume{Name: hostVolume(name, n), VolumeSource: hostPath(dir, corev1.HostPathDirectory)})
		// A passthrough client could not write a read-only volume anyway; this way its directory cannot be written either.
		readOnly := m.Volume.ReadOnly && m.Volume.Config[configPath] == dir
		mounts = append(mounts, corev1.VolumeMount{Name: hostVolume(name, n), MountPath: dir, ReadOnly: readOnly})
	}
	return mounts
}
