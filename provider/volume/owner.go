package volume

import (
	corev1 "k8s.io/api/core/v1"
)

// fsGroup returns the group that the pod's volumes belong to; nil if it has none. fsGroupChangePolicy does not matter here: an
// emptyDir gets its group while it is still empty, and volumes of files are written for it (core/v1 PodSecurityContext).
func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// fsUser returns the user that every container which mounts the volume runs as; nil if one of them names none, or if they
// differ. Containers that cannot see the volume do not count, so that an added sidecar changes nothing.
func fsUser(pod *corev1.Pod, volume string) *int64 {
	var user *int64
	same := true
	visit := func(mounts []corev1.VolumeMount, sc *corev1.SecurityContext) {
		if !mountsVolume(mounts, volume) {
			return
		}
		runs := runAsUser(pod, sc)
		switch {
		case runs == nil, user != nil && *user != *runs:
			same = false
		default:
			user = runs
		}
	}
	for i := range pod.Spec.InitContainers {
		visit(pod.Spec.InitContainers[i].VolumeMounts, pod.Spec.InitContainers[i].SecurityContext)
	}
	for i := range pod.Spec.Containers {
		visit(pod.Spec.Containers[i].VolumeMounts, pod.Spec.Containers[i].SecurityContext)
	}
	for i := range pod.Spec.EphemeralContainers {
		visit(pod.Spec.EphemeralContainers[i].VolumeMounts, pod.Spec.EphemeralContainers[i].SecurityContext)
	}
	if !same {
		return nil
	}
	return user
}

func mountsVolume(mounts []corev1.VolumeMount, volume string) bool {
	for i := range mounts {
		if mounts[i].Name == volume {
			return true
		}
	}
	return false
}

func runAsUser(pod *corev1.Pod, sc *corev1.SecurityContext) *int64 {
	if sc != nil && sc.RunAsUser != nil {
		return sc.RunAsUser
	}
	if pod.Spec.SecurityContext != nil {
		return pod.Spec.SecurityContext.RunAsUser
	}
	return nil
}
