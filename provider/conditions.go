package provider

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ownedConditions are the conditions that a kubelet owns. Others in a pod's status belong to someone else and are left alone.
var ownedConditions = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	corev1.PodResizeInProgress, corev1.PodResizePending,
}

func ownsCondition(t corev1.PodConditionType) bool { return slices.Contains(ownedConditions, t) }

// Reasons of conditions, as the kubelet names them.
const (
	reasonPodCompleted   = "PodCompleted"
	reasonPodFailed      = "PodFailed"
	reasonNotReady       = "ContainersNotReady"
	reasonNotInitialized = "ContainersNotInitialized"
	reasonGatesNotReady  = "ReadinessGatesNotReady"
)

// setConditions sets the conditions that a node owns. The time of a transition is kept while a condition's status stays.
func (f facts) setConditions(s *corev1.PodStatus) {
	ready := f.containersReady(s)
	conditions := []corev1.PodCondition{
		f.readyToStart(s), f.initialized(s), f.podReady(ready), ready,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	conditions = append(conditions, f.resizing...)
	conditions = append(conditions, f.more...)
	if f.verdict != nil && f.verdict.condition != nil && isFinal(s.Phase) {
		conditions = append(conditions, *f.verdict.condition)
	}
	for i := range conditions {
		c := &conditions[i]
		c.ObservedGeneration = f.pod.Generation
		c.LastTransitionTime = *stamp(f.now)
		if before := findCondition(f.old.Conditions, c.Type); before != nil && before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
	}
	s.Conditions = conditions
}

func (f facts) readyToStart(*corev1.PodStatus) corev1.PodCondition {
	status := corev1.ConditionFalse
	if sandbox, ok := f.state.Sandbox(); ok && sandbox.Ready && (f.pod.Spec.HostNetwork || len(sandbox.IPs) > 0) {
		status = corev1.ConditionTrue
	}
	return corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: status}
}

func (f facts) initialized(s *corev1.PodStatus) corev1.PodCondition {
	if s.Phase == corev1.PodSucceeded {
		return corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, Reason: reasonPodCompleted}
	}
	var incomplete []string
	for i := range s.InitContainerStatuses {
		st := &s.InitContainerStatuses[i]
		done := st.Ready
		if isSidecar(&f.pod.Spec.InitContainers[i]) {
			done = st.Started != nil && *st.Started
		}
		if !done {
			incomplete = append(incomplete, st.Name)
		}
	}
	if len(incomplete) == 0 || anyBegun(s.ContainerStatuses) {
		return corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionFalse, Reason: reasonNotInitialized,
		Message: fmt.Sprintf("containers with incomplete status: %s", incomplete)}
}

func (f facts) containersReady(s *corev1.PodStatus) corev1.PodCondition {
	switch s.Phase {
	case corev1.PodSucceeded:
		return corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Reason: reasonPodCompleted}
	case corev1.PodFailed:
		return corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Reason: reasonPodFailed}
	}
	var unready []string
	for i := range s.InitContainerStatuses {
		if isSidecar(&f.pod.Spec.InitContainers[i]) && !s.InitContainerStatuses[i].Ready {
			unready = append(unready, s.InitContainerStatuses[i].Name)
		}
	}
	for i := range s.ContainerStatuses {
		if !s.ContainerStatuses[i].Ready {
			unready = append(unready, s.ContainerStatuses[i].Name)
		}
	}
	if len(unready) > 0 {
		return corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Reason: reasonNotReady,
			Message: fmt.Sprintf("containers with unready status: %s", unready)}
	}
	return corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
}

// podReady adds the readiness gates to what the containers say. The gates' conditions are those of the API's pod.
func (f facts) podReady(containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range f.pod.Spec.ReadinessGates {
		switch have := findCondition(f.pod.Status.Conditions, gate.ConditionType); {
		case have == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case have.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, have.Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reasonGatesNotReady, strings.Join(missing, ", ")
	}
	return c
}

func findCondition(conditions []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == t {
			return &conditions[i]
		}
	}
	return nil
}
