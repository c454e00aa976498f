package mountpod

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestTrouble(t *testing.T) {
	waits := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Image: "client:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "why"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Message: "usage\n"}},
		}}}
	}
	for name, row := range map[string]struct {
		status corev1.PodStatus
		want   string
	}{
		"new":       {corev1.PodStatus{}, ""},
		"creating":  {waits("ContainerCreating"), ""},
		"pull":      {waits("ImagePullBackOff"), "image client:1 of Mount Pod p cannot be pulled: ImagePullBackOff: why"},
		"config":    {waits("CreateContainerConfigError"), "container of Mount Pod p cannot be started: CreateContainerConfigError: why"},
		"crash":     {waits("CrashLoopBackOff"), "agent of Mount Pod p ends again and again: exit code 2: usage"},
		"no memory": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfmemory", Message: "short"}, "node has no room for Mount Pod p (OutOfmemory: short); it asks for cpu 1, memory 1Gi, lower"},
		"critical": {
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "UnexpectedAdmissionError", Message: "preemption: error finding a set of pods to preempt: none"},
			"node has no room for Mount Pod p (UnexpectedAdmissionError: preemption: error finding a set of pods to preempt: none); it asks for cpu 1, memory 1Gi, lower",
		},
		"device":  {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "UnexpectedAdmissionError", Message: "gpu"}, "Mount Pod p has ended: UnexpectedAdmissionError: gpu"},
		"evicted": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "disk"}, "Mount Pod p has ended: Evicted: disk"},
		"done":    {corev1.PodStatus{Phase: corev1.PodSucceeded}, "Mount Pod p has ended (Succeeded)"},
		"elsewhere": {corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "no node"},
		}}, "Mount Pod p cannot run on this node: Unschedulable: no node"},
	} {
		pod := &corev1.Pod{Status: row.status}
		pod.Name = "p"
		if got := trouble(pod, sample()); got != row.want && (row.want == "" || !strings.HasPrefix(got, row.want)) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestPauseBetweenReplacements(t *testing.T) {
	want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}
	for failures, w := range want {
		if got := pause(failures); got != w {
			t.Errorf("after %d failures: %s, want %s", failures, got, w)
		}
	}
}
