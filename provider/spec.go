package provider

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// containerKind is which list of the specification a container stands in.
type containerKind int

const (
	initKind containerKind = iota
	appKind
	ephemeralKind
)

// isSidecar reports whether an init container is a native sidecar: started in its turn, kept running beside the application.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// eachContainer calls f with every container of the pod in the order in which they start, until f returns false.
func eachContainer(pod *corev1.Pod, f func(c *corev1.Container, kind containerKind) bool) {
	for i := range pod.Spec.InitContainers {
		if !f(&pod.Spec.InitContainers[i], initKind) {
			return
		}
	}
	for i := range pod.Spec.Containers {
		if !f(&pod.Spec.Containers[i], appKind) {
			return
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if !f((*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon), ephemeralKind) {
			return
		}
	}
}

// findContainer returns the container of that name, or nil.
func findContainer(pod *corev1.Pod, name string) (*corev1.Container, containerKind) {
	var found *corev1.Container
	var kind containerKind
	eachContainer(pod, func(c *corev1.Container, k containerKind) bool {
		if c.Name == name {
			found, kind = c, k
			return false
		}
		return true
	})
	return found, kind
}

// ephemeralTarget returns the name of the container whose processes the ephemeral container sees, "" for none.
func ephemeralTarget(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return pod.Spec.EphemeralContainers[i].TargetContainerName
		}
	}
	return ""
}

// isFinal reports whether a phase cannot change any more.
func isFinal(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// inSandbox returns the newest container of that name in the sandbox.
func inSandbox(p cri.Pod, name, sandbox string) (cri.Container, bool) {
	for _, c := range p.Containers {
		if c.Name == name && c.SandboxID == sandbox {
			return c, true
		}
	}
	return cri.Container{}, false
}

// isLive reports whether the container may have processes.
func isLive(c cri.Container) bool { return c.State == cri.Running || c.State == cri.Unknown }

// liveContainers returns the containers that may have processes.
func liveContainers(p cri.Pod) []cri.Container {
	var live []cri.Container
	for _, c := range p.Containers {
		if isLive(c) {
			live = append(live, c)
		}
	}
	return live
}
