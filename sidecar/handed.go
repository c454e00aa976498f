package sidecar

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Attributes of the inline volumes by which the CSI driver of a node hands a sidecar what it needs.
const (
	// SessionAttribute names the volume of the pod whose session's socket the inline volume shows.
	SessionAttribute = "sidemount.io/session"
	// AgentAttribute makes the inline volume show the agent's program.
	AgentAttribute = "sidemount.io/agent"
)

// SessionStatus is the socket in a session's directory that tells whether the session serves.
const SessionStatus = "status.sock"

// handedPlace is a node with a CSI driver of ours: agent and sessions come in inline volumes, and the volume itself stays what it is. The
// driver, which looks at the pod, publishes a session of the pod's own in place of a share.
type handedPlace struct {
	pod    *corev1.Pod
	driver string
}

var _ place = handedPlace{}

func (handedPlace) names([]Mount) (containers, volumes []string) { return nil, nil }

func (p handedPlace) furnish([]Mount) []corev1.Container {
	addVolume(p.pod, handed(agentVolume, p.driver, AgentAttribute, "true"))
	return nil
}

func handed(name, driver, attribute, value string) corev1.Volume {
	readOnly := true
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: driver, ReadOnly: &readOnly, VolumeAttributes: map[string]string{attribute: value},
	}}}
}

func (p handedPlace) session(m Mount) Place {
	return Place{Session: &corev1.VolumeMount{Name: sessionVolume(m.Volume.Name), MountPath: SessionMount, ReadOnly: true}}
}

// redirect leaves the volume to the driver.
func (p handedPlace) redirect(m Mount) error {
	addVolume(p.pod, handed(sessionVolume(m.Volume.Name), p.driver, SessionAttribute, m.Volume.Name))
	eachMounts(p.pod, func(_ string, mounts []corev1.VolumeMount) { follow(mounts, m) })
	return nil
}

func (p handedPlace) redirected(m Mount) bool {
	return slices.ContainsFunc(p.pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == sessionVolume(m.Volume.Name) && shows(v, p.driver, SessionAttribute) == m.Volume.Name
	})
}

// finish has each sidecar awaited before the next container starts.
func (handedPlace) finish(sidecars []corev1.Container) {
	for n := range sidecars {
		sidecars[n].StartupProbe = startup(AgentPath, SessionMount+"/"+SessionStatus, "serving")
	}
}

// shows returns the value of an attribute of an inline volume of the driver, "" if the volume is none.
func shows(v corev1.Volume, driver, attribute string) string {
	if v.CSI == nil || v.CSI.Driver != driver {
		return ""
	}
	return v.CSI.VolumeAttributes[attribute]
}

// HandedVolumes returns the volumes of a pod whose sessions the node's CSI driver is to hand to sidecars in the pod.
func HandedVolumes(pod *corev1.Pod, driver string) []string {
	var volumes []string
	for _, v := range pod.Spec.Volumes {
		if name := shows(v, driver, SessionAttribute); name != "" {
			volumes = append(volumes, name)
		}
	}
	return volumes
}

// ReinjectHanded is Reinject for a pod whose sessions the node's CSI driver hands over.
func ReinjectHanded(pod *corev1.Pod, driver string) *corev1.Pod {
	out := pod.DeepCopy()
	volumes, sidecars := HandedVolumes(out, driver), map[string]bool{}
	for _, name := range volumes {
		m := Mount{}
		m.Volume.Name = name
		sidecars[ContainerName(name)] = true
		eachMounts(out, func(_ string, mounts []corev1.VolumeMount) { follow(mounts, m) })
	}
	first(out, sidecars, func(m corev1.VolumeMount) bool { return slices.Contains(volumes, m.Name) })
	return out
}

// Distinct leaves out volumes of a claim that the pod has already: a kubelet publishes a claim once for a pod, and so it has one session.
func Distinct(mounts []Mount) []Mount {
	var out []Mount
	for _, m := range mounts {
		if m.Claim == "" || !slices.ContainsFunc(out, func(o Mount) bool { return o.Claim == m.Claim }) {
			out = append(out, m)
		}
	}
	return out
}
