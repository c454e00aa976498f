package provider

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/component-helpers/resource"

	"github.com/sidemount/sidemount/provider/cri"
)

// resizeRetry is how soon a resize that the node has no room for is looked at again.
const resizeRetry = 10 * time.Second

// resize is a running container whose resources in force are not those that it was granted.
type resize struct {
	container cri.Container
	spec      *corev1.Container
}

// grant decides about the resources that a pod asks for after it was resized. It returns the pod with what the node grants: all of
// it, or what the containers have had so far together with the condition that says why. others are the pods that the node runs.
// It is a pure function.
func grant(pod *corev1.Pod, status *corev1.PodStatus, others []*corev1.Pod, allocatable corev1.ResourceList) (*corev1.Pod, *corev1.PodCondition) {
	before := pod.DeepCopy()
	if !restoreResources(before.Spec.Containers, status.ContainerStatuses) {
		return pod, nil
	}
	refused := admitResources(pod, others, allocatable)
	if refused == nil {
		return pod, nil
	}
	pending := &corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonDeferred, Message: refused.message}
	if never := admitResources(pod, nil, allocatable); never != nil {
		pending.Reason, pending.Message = corev1.PodReasonInfeasible, never.message
	}
	return before, pending
}

// restoreResources gives containers the resources that their statuses say they were granted, and reports whether a request differs.
func restoreResources(specs []corev1.Container, statuses []corev1.ContainerStatus) bool {
	differs := false
	for i := range specs {
		c, st := &specs[i], findStatus(statuses, specs[i].Name)
		if st == nil || st.State.Running == nil || st.Resources == nil ||
			apiequality.Semantic.DeepEqual(sized(st.AllocatedResources), sized(c.Resources.Requests)) {
			continue
		}
		differs = true
		c.Resources.Requests, c.Resources.Limits = st.AllocatedResources, st.Resources.Limits
	}
	return differs
}

// sized returns the resources that can be changed while a container runs.
func sized(list corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q, ok := list[name]; ok {
			out[name] = q
		}
	}
	return out
}

// resizeIfNeeded brings the resources in force to what was granted: in place, or by a restart if the container's policy says so for
// one of those that differ. It reports whether the container is to be ended.
func (v view) resizeIfNeeded(a *actions, c *corev1.Container, have cri.Container) bool {
	// A pod of the first generation has never been changed; whatever the runtime says about its resources is not a resize.
	if v.unenforced == nil || v.injected(c.Name) || v.pod.Generation < 2 {
		return false
	}
	cpu, memory := v.unenforced(v.pod, c, have)
	if !cpu && !memory {
		return false
	}
	for _, p := range c.ResizePolicy {
		concerned := cpu && p.ResourceName == corev1.ResourceCPU || memory && p.ResourceName == corev1.ResourceMemory
		if concerned && p.RestartPolicy == corev1.RestartContainer {
			a.kill = append(a.kill, kill{have, killResize, fmt.Sprintf("Container %s resize requires restart", c.Name)})
			return true
		}
	}
	a.resize = append(a.resize, resize{have, c})
	return false
}

// totalRequests is what a pod asks of the node, in a form for people.
func totalRequests(pod *corev1.Pod) string {
	r := resource.PodRequests(pod, resource.PodResourcesOptions{})
	return fmt.Sprintf("cpu=%s memory=%s", r.Cpu(), r.Memory())
}
