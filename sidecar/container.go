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

// Place is where a client container finds what it needs of its host; absolute paths on the host.
type Place struct {
	// SessionDir holds the session's socket.
	SessionDir string
	// Session is how the container mounts that directory if it is in a volume that the pod has already; it replaces SessionDir.
	Session *corev1.VolumeMount
	// AppArmor asks for the runtime's default profile. It must be set only where the node has AppArmor.
	AppArmor bool
}

// Container returns the container that serves m, and the volumes that it adds to its pod besides AgentVolume's. What the API
// server would fill in is written out, as the copy of a virtual node never passes through it. It is pure.
func Container(m Mount, p Place) (corev1.Container, []corev1.Volume) {
	mounts, volumes := storage(m, p)
	return corev1.Container{
		Name:                     GenerationName(m.Volume.Name, m.Generation),
		Image:                    m.Image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Command:                  command(m),
		Resources:                *m.Resources.DeepCopy(),
		SecurityContext:          securityContext(m, p),
		VolumeMounts:             mounts,
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}, volumes
}

func command(m Mount) []string {
	argv := []string{AgentPath, "run"}
	if m.Generation > 0 {
		argv = append(argv, "-generation", strconv.Itoa(m.Generation))
	}
	return slices.Concat(argv, []string{"--"}, m.Argv)
}

// AgentVolume is the volume with the agent's executable, which every client container mounts.
func AgentVolume(agentDir string) corev1.Volume {
	return corev1.Volume{Name: agentVolume, VolumeSource: hostPath(agentDir, corev1.HostPathDirectory)}
}

// securityContext sets every field that the container would otherwise take over from the pod.
func securityContext(m Mount, p Place) *corev1.SecurityContext {
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
	if p.AppArmor {
		sc.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	}
	return sc
}

// storage lists what the container sees of the node: the agent, its session and what the volume names.
func storage(m Mount, p Place) (mounts []corev1.VolumeMount, volumes []corev1.Volume) {
	name := m.Volume.Name
	add := func(v corev1.Volume, at string, readOnly bool) {
		volumes = append(volumes, v)
		mounts = append(mounts, corev1.VolumeMount{Name: v.Name, MountPath: at, ReadOnly: readOnly})
	}
	mounts = append(mounts, corev1.VolumeMount{Name: agentVolume, MountPath: AgentMount, ReadOnly: true})
	if p.Session != nil {
		mounts = append(mounts, *p.Session)
	} else {
		add(corev1.Volume{Name: sessionVolume(name), VolumeSource: hostPath(p.SessionDir, corev1.HostPathDirectory)}, SessionMount, true)
	}
	if !slices.Contains(m.HostPaths, scratch) && !slices.ContainsFunc(m.Caches, func(c Cache) bool { return c.Path == scratch }) {
		add(corev1.Volume{Name: tmpVolume(name), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, scratch, false)
	}
	for n, c := range m.Caches {
		add(corev1.Volume{Name: cacheVolume(name, n), VolumeSource: c.source()}, c.Path, false)
	}
	for n, dir := range m.HostPaths {
		// A passthrough client could not write a read-only volume anyway; this way its directory cannot be written either.
		readOnly := m.Volume.ReadOnly && m.Volume.Config[configPath] == dir
		add(corev1.Volume{Name: hostVolume(name, n), VolumeSource: hostPath(dir, corev1.HostPathDirectory)}, dir, readOnly)
	}
	return mounts, volumes
}
