package provider

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// facts is all that decides what a pod's status is.
type facts struct {
	// pod is the API's pod: containers that were injected are not in it, so they have no status.
	pod *corev1.Pod
	// granted is pod with the resources that the node grants; nil grants what it asks for.
	granted *corev1.Pod
	// more are conditions that the node does not compute itself.
	more []corev1.PodCondition
	// resizing are the conditions of a resize that is not done.
	resizing []corev1.PodCondition
	// old is the last status that was computed, or the API's.
	old   *corev1.PodStatus
	state cri.Pod
	now   time.Time
	// waiting says by container name why a container that should run does not.
	waiting map[string]corev1.ContainerStateWaiting
	// message explains why no container has been created yet.
	message string
	// hooked has the names of containers that run and whose postStart hook has not ended.
	hooked map[string]bool
	// started and ready are the verdicts of the probes, by container id.
	started map[string]bool
	ready   map[string]bool
	// hostIPs are the node's addresses, the primary one first.
	hostIPs []string
	// ended says that every container, injected ones included, has ended for good.
	ended bool
	// verdict overrides the phase of a pod that was ended by the node; nil for others.
	verdict *verdict
}

// verdict is why the node made a pod fail.
type verdict struct {
	reason, message string
	// condition is added to the pod's conditions when the phase is final; nil adds none.
	condition *corev1.PodCondition
}

// computeStatus tells what the API server should know. It is a pure function of the facts; conditions that the node does not own
// are not in its result, except those of the verdict.
func computeStatus(f facts) corev1.PodStatus {
	s := corev1.PodStatus{
		ObservedGeneration: f.pod.Generation,
		StartTime:          f.old.StartTime,
		QOSClass:           f.pod.Status.QOSClass,
	}
	if s.StartTime == nil {
		s.StartTime = stamp(f.now)
	}
	f.addresses(&s)
	s.InitContainerStatuses = f.containers(f.pod.Spec.InitContainers, f.old.InitContainerStatuses, initKind)
	s.ContainerStatuses = f.containers(f.pod.Spec.Containers, f.old.ContainerStatuses, appKind)
	s.EphemeralContainerStatuses = f.containers(ephemeralOf(f.pod), f.old.EphemeralContainerStatuses, ephemeralKind)
	if f.ended {
		f.closeContainers(&s)
	}
	f.setPhase(&s)
	f.setConditions(&s)
	return s
}

// setPhase sets phase, reason and message. A final phase is told only when no container runs any more, because others take over
// what the pod used as soon as they see it, and it never changes after that.
func (f facts) setPhase(s *corev1.PodStatus) {
	s.Phase = phaseOf(f.pod, s, f.ended)
	s.Reason, s.Message = f.old.Reason, f.old.Message
	switch {
	case isFinal(f.old.Phase):
		s.Phase = f.old.Phase
	case !f.ended && isFinal(s.Phase):
		s.Phase = f.old.Phase
		if s.Phase == "" {
			s.Phase = corev1.PodPending
		}
	case f.ended && f.verdict != nil:
		s.Phase, s.Reason, s.Message = corev1.PodFailed, f.verdict.reason, f.verdict.message
	case f.ended && !isFinal(s.Phase):
		s.Phase = corev1.PodFailed
	}
}

func (f facts) addresses(s *corev1.PodStatus) {
	for _, ip := range f.hostIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
	var ips []string
	if f.pod.Spec.HostNetwork {
		ips = f.hostIPs
	} else if sandbox, ok := f.state.Sandbox(); ok && sandbox.Ready {
		ips = sandbox.IPs
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	// The addresses of a pod that has ended stay for those who look at what happened.
	if len(ips) == 0 {
		s.PodIPs = slices.Clone(f.old.PodIPs)
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

// phaseOf computes the phase from the containers' statuses alone. ended says that no container will be started again whatever
// the restart policy says.
func phaseOf(pod *corev1.Pod, s *corev1.PodStatus, ended bool) corev1.PodPhase {
	initialized := anyBegun(s.ContainerStatuses)
	sidecars := 0
	for i := range s.InitContainerStatuses {
		c, st := &pod.Spec.InitContainers[i], &s.InitContainerStatuses[i]
		switch {
		case isSidecar(c):
			if st.State.Running != nil {
				sidecars++
			}
			if !initialized && !ended && (st.Started == nil || !*st.Started) {
				return corev1.PodPending
			}
		case initialized:
		case initFailed(st) && !restartsAfter(pod, c, initKind, lastExit(st)):
			return corev1.PodFailed
		case st.State.Terminated == nil || st.State.Terminated.ExitCode != 0:
			return corev1.PodPending
		}
	}
	return appPhase(pod, s.ContainerStatuses, sidecars, ended)
}

func appPhase(pod *corev1.Pod, statuses []corev1.ContainerStatus, sidecars int, ended bool) corev1.PodPhase {
	running, succeeded, willRestart := sidecars, 0, false
	for i := range statuses {
		st := &statuses[i]
		switch {
		case st.State.Running != nil:
			running++
		case st.State.Terminated == nil && st.LastTerminationState.Terminated == nil:
			return corev1.PodPending
		case st.State.Terminated == nil:
			willRestart = true
		default:
			if st.State.Terminated.ExitCode == 0 {
				succeeded++
			}
			willRestart = willRestart || restartsAfter(pod, &pod.Spec.Containers[i], appKind, st.State.Terminated.ExitCode)
		}
	}
	switch {
	case running > 0, willRestart && !ended:
		return corev1.PodRunning
	case succeeded == len(statuses):
		return corev1.PodSucceeded
	default:
		return corev1.PodFailed
	}
}

// anyBegun reports whether one of the containers has ever been started.
func anyBegun(statuses []corev1.ContainerStatus) bool {
	for i := range statuses {
		st := &statuses[i]
		if st.State.Running != nil || st.State.Terminated != nil || st.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return false
}

func initFailed(st *corev1.ContainerStatus) bool {
	return st.State.Terminated != nil && st.State.Terminated.ExitCode != 0
}

func lastExit(st *corev1.ContainerStatus) int32 {
	if st.State.Terminated != nil {
		return st.State.Terminated.ExitCode
	}
	return 0
}

func ephemeralOf(pod *corev1.Pod) []corev1.Container {
	all := make([]corev1.Container, 0, len(pod.Spec.EphemeralContainers))
	for i := range pod.Spec.EphemeralContainers {
		all = append(all, corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return all
}

// stamp returns t in whole seconds, as the API server stores it; otherwise every comparison with its copy would differ.
func stamp(t time.Time) *metav1.Time {
	s := metav1.NewTime(t).Rfc3339Copy()
	return &s
}
