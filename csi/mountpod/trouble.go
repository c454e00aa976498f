package mountpod

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sidemount/sidemount/sidecar"
)

// trouble says in words why a Mount Pod does not run, "" if nothing is wrong with it as far as its status tells.
func trouble(pod *corev1.Pod, m sidecar.Mount) string {
	if finished(pod) {
		return ending(pod, m)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("Mount Pod %s cannot run on this node: %s: %s", pod.Name, c.Reason, c.Message)
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Waiting != nil {
			if text := waiting(pod, c); text != "" {
				return text
			}
		}
	}
	return ""
}

// ending says why a Mount Pod has ended, which it never does by itself.
func ending(pod *corev1.Pod, m sidecar.Mount) string {
	switch reason := pod.Status.Reason; {
	case strings.HasPrefix(reason, "OutOf"), preemptedNobody(pod):
		return fmt.Sprintf("node has no room for Mount Pod %s (%s: %s); it asks for %s, lower juicefs/mount-cpu-request or juicefs/mount-memory-request, or free some of the node",
			pod.Name, reason, pod.Status.Message, cpuAndMemory(m))
	case reason != "":
		return fmt.Sprintf("Mount Pod %s has ended: %s: %s", pod.Name, reason, pod.Status.Message)
	}
	return fmt.Sprintf("Mount Pod %s has ended (%s)", pod.Name, pod.Status.Phase)
}

// preemptedNobody tells that the kubelet found no pods whose end would make enough room. That is how it says of critical pods, as
// Mount Pods are by default, what it calls OutOfcpu and the like of others (k8s.io/kubernetes/pkg/kubelet/preemption).
func preemptedNobody(pod *corev1.Pod) bool {
	return pod.Status.Reason == "UnexpectedAdmissionError" && strings.Contains(pod.Status.Message, "preempt")
}

// waiting says what a container waits for, if that is a failure.
func waiting(pod *corev1.Pod, c corev1.ContainerStatus) string {
	w := c.State.Waiting
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError":
		return fmt.Sprintf("image %s of Mount Pod %s cannot be pulled: %s: %s", c.Image, pod.Name, w.Reason, w.Message)
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError":
		return fmt.Sprintf("container of Mount Pod %s cannot be started: %s: %s", pod.Name, w.Reason, w.Message)
	case "CrashLoopBackOff":
		text := w.Message
		if last := c.LastTerminationState.Terminated; last != nil {
			text = fmt.Sprintf("exit code %d: %s", last.ExitCode, strings.TrimSpace(last.Message))
		}
		return fmt.Sprintf("agent of Mount Pod %s ends again and again: %s", pod.Name, text)
	}
	return ""
}

// finished pods never run again: they were evicted, or the kubelet did not admit them.
func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// progress says how far a Mount Pod is that nothing is wrong with.
func progress(pod *corev1.Pod) string {
	if pod == nil {
		return "its Mount Pod is not there yet"
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Waiting != nil && c.State.Waiting.Reason != "" {
			return fmt.Sprintf("Mount Pod %s/%s is in state %s; look at its events", pod.Namespace, pod.Name, c.State.Waiting.Reason)
		}
		if c.State.Running != nil {
			return fmt.Sprintf("Mount Pod %s/%s runs and its client does not serve yet; look at its log", pod.Namespace, pod.Name)
		}
	}
	return fmt.Sprintf("Mount Pod %s/%s has not started yet; look at its events", pod.Namespace, pod.Name)
}

// refused says why the API server did not take a Mount Pod.
func refused(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return &podError{"the API server refuses the Mount Pod: " + status.Status().Message}
	}
	return &podError{"the Mount Pod cannot be created: " + err.Error()}
}
