package sidecar

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// GuestVolumes returns the volumes that a pod's own broker serves, or nil if the pod has no such broker: a container of its
// name alone does not make one.
func GuestVolumes(pod *corev1.Pod) []string {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == BrokerContainer })
	if i < 0 {
		return nil
	}
	argv := pod.Spec.InitContainers[i].Command
	if len(argv) < 2 || argv[0] != GuestAgent || argv[1] != "supervise" {
		return nil
	}
	var volumes []string
	for n := 2; n+1 < len(argv); n += 2 {
		if argv[n] == "-volume" {
			name, _, _ := strings.Cut(argv[n+1], ":")
			volumes = append(volumes, name)
		}
	}
	return volumes
}

// Reinject returns a copy of a pod with its own broker in which containers that somebody has added since use the volumes as the
// others do, and come after the sidecars if they are init containers.
func Reinject(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	volumes := GuestVolumes(out)
	for _, name := range volumes {
		m := Mount{}
		m.Volume.Name = name
		eachMounts(out, func(_ string, mounts []corev1.VolumeMount) {
			for n := range mounts {
				if mounts[n].Name == name {
					enter(&mounts[n], m)
				}
			}
		})
	}
	sidecars := map[string]bool{BrokerContainer: true}
	for _, name := range volumes {
		sidecars[ContainerName(name)] = true
	}
	first(out, sidecars, func(m corev1.VolumeMount) bool { return m.Name == mountsVolume })
	return out
}

// first moves the sidecars to the front if a container that needs them is before the last of them. Otherwise the order stays, so that
// two webhooks that both want to be first do not undo each other's work.
func first(pod *corev1.Pod, sidecars map[string]bool, needs func(corev1.VolumeMount) bool) {
	needy, last := -1, -1
	for i, c := range pod.Spec.InitContainers {
		if sidecars[c.Name] {
			last = i
			continue
		}
		if needy < 0 && slices.ContainsFunc(c.VolumeMounts, needs) {
			needy = i
		}
	}
	if needy < 0 || needy > last {
		return
	}
	slices.SortStableFunc(pod.Spec.InitContainers, func(a, b corev1.Container) int { return rank(sidecars, a) - rank(sidecars, b) })
}

func rank(sidecars map[string]bool, c corev1.Container) int {
	if sidecars[c.Name] {
		return 0
	}
	return 1
}
