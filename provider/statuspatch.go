package provider

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// mergeStatus returns the API's status with the fields that a node owns replaced by those of next. Conditions of others stay, and
// so does everything that the scheduler or a controller writes.
func mergeStatus(api, next *corev1.PodStatus) *corev1.PodStatus {
	merged := next.DeepCopy()
	merged.NominatedNodeName = api.NominatedNodeName
	merged.Resize = api.Resize
	merged.ResourceClaimStatuses = api.ResourceClaimStatuses
	merged.ExtendedResourceClaimStatus = api.ExtendedResourceClaimStatus
	if merged.QOSClass == "" {
		merged.QOSClass = api.QOSClass
	}
	conditions := make([]corev1.PodCondition, 0, len(api.Conditions)+len(next.Conditions))
	for _, c := range api.Conditions {
		if !ownsCondition(c.Type) && findCondition(next.Conditions, c.Type) == nil {
			conditions = append(conditions, c)
		}
	}
	merged.Conditions = append(conditions, next.Conditions...)
	return merged
}

// statusPatch returns the strategic merge patch of pods/status that turns the API's status into next, or nil if they agree. The
// UID in it is a precondition: a pod of the same name that came later answers Conflict.
func statusPatch(uid types.UID, api, next *corev1.PodStatus) ([]byte, error) {
	merged := mergeStatus(api, next)
	if apiequality.Semantic.DeepEqual(withoutOrder(api), withoutOrder(merged)) {
		return nil, nil
	}
	before, err := json.Marshal(corev1.Pod{Status: *api})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	after := corev1.Pod{Status: *merged}
	after.UID = uid
	changed, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, changed, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compute status patch: %w", err)
	}
	return patch, nil
}

// withoutOrder returns the status with its conditions in the order of their types: the API server keeps the order in which they
// came, which means nothing.
func withoutOrder(s *corev1.PodStatus) *corev1.PodStatus {
	sorted := *s
	sorted.Conditions = append([]corev1.PodCondition(nil), s.Conditions...)
	for i := range sorted.Conditions {
		for j := i; j > 0 && sorted.Conditions[j].Type < sorted.Conditions[j-1].Type; j-- {
			sorted.Conditions[j], sorted.Conditions[j-1] = sorted.Conditions[j-1], sorted.Conditions[j]
		}
	}
	return &sorted
}
