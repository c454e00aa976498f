package node

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Facts are what one round of checks found out; the conditions are computed from nothing else.
type Facts struct {
	// Runtime is the error that keeps the runtime from running pods; nil means that it is ready.
	Runtime error
	// Network is the error that keeps the runtime from giving pods a network; nil means that it is ready.
	Network error
	// Memory, Disk and Processes tell in words what runs short; an empty string means that there is enough.
	Memory, Disk, Processes string
}

// verdict is one condition without its times.
type verdict struct {
	kind            corev1.NodeConditionType
	status          corev1.ConditionStatus
	reason, message string
}

// ConditionsOf computes the node's conditions. A condition whose status stays as it was in previous keeps its transition
// time; now is the heartbeat of all. It is pure.
func ConditionsOf(previous []corev1.NodeCondition, f Facts, now time.Time) []corev1.NodeCondition {
	verdicts := []verdict{
		pressureVerdict(corev1.NodeMemoryPressure, f.Memory),
		pressureVerdict(corev1.NodeDiskPressure, f.Disk),
		pressureVerdict(corev1.NodePIDPressure, f.Processes),
		networkVerdict(f),
		readyVerdict(f),
	}
	conditions := make([]corev1.NodeCondition, 0, len(verdicts))
	for _, v := range verdicts {
		conditions = append(conditions, corev1.NodeCondition{
			Type:               v.kind,
			Status:             v.status,
			Reason:             v.reason,
			Message:            v.message,
			LastHeartbeatTime:  metav1.NewTime(now),
			LastTransitionTime: transition(previous, v, now),
		})
	}
	return conditions
}

// pressureWords are the kubelet's reasons, which dashboards and alerts know by heart.
var pressureWords = map[corev1.NodeConditionType]struct{ short, calm, message string }{
	corev1.NodeMemoryPressure: {"KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "sufficient memory available"},
	corev1.NodeDiskPressure:   {"KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "no disk pressure"},
	corev1.NodePIDPressure:    {"KubeletHasInsufficientPID", "KubeletHasSufficientPID", "sufficient PID available"},
}

func pressureVerdict(kind corev1.NodeConditionType, shortage string) verdict {
	words := pressureWords[kind]
	if shortage != "" {
		return verdict{kind, corev1.ConditionTrue, words.short, "node has " + shortage}
	}
	return verdict{kind, corev1.ConditionFalse, words.calm, "node has " + words.message}
}

func networkVerdict(f Facts) verdict {
	if f.Network != nil {
		return verdict{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, "RuntimeNetworkNotReady", f.Network.Error()}
	}
	return verdict{corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "RuntimeNetworkReady", "container runtime network is ready"}
}

func readyVerdict(f Facts) verdict {
	var problems []string
	for _, err := range []error{f.Runtime, f.Network} {
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) == 0 {
		return verdict{corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "sidemount is posting ready status"}
	}
	return verdict{corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", "[" + strings.Join(problems, ", ") + "]"}
}

func transition(previous []corev1.NodeCondition, v verdict, now time.Time) metav1.Time {
	for _, old := range previous {
		if old.Type == v.kind && old.Status == v.status {
			return old.LastTransitionTime
		}
	}
	return metav1.NewTime(now)
}

// sameConditions ignores heartbeats.
func sameConditions(a, b []corev1.NodeCondition) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Type != b[i].Type || a[i].Status != b[i].Status || a[i].Reason != b[i].Reason || a[i].Message != b[i].Message {
			return false
		}
	}
	return true
}
