package cri

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// The kernel adds these to a process's badness, which is thousandths of the memory that it uses.
const (
	guaranteedScore = -997
	bestEffortScore = 1000
	// supervisorScore is the most for the first process of a container that is to be spared and its other processes killed: the middle, so
	// that theirs can be higher by half of the container's memory, and it outlives applications that promised as little.
	supervisorScore = 500
)

// nodeCritical is the priority class of pods that a node cannot live without.
const nodeCritical = "system-node-critical"

// QOSClass returns the pod's quality of service class: the one in its status, which the API server has set, or else the one that
// its containers amount to.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	return computeQOS(pod)
}

func computeQOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Spec.Resources != nil {
		return qosOf([]corev1.ResourceRequirements{*pod.Spec.Resources})
	}
	var all []corev1.ResourceRequirements
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			all = append(all, list[i].Resources)
		}
	}
	return qosOf(all)
}

// qosOf: Guaranteed if everyone limits CPU and memory and the sums of requests and limits are the same, BestEffort if nobody
// says anything, Burstable otherwise.
func qosOf(all []corev1.ResourceRequirements) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	guaranteed := len(all) > 0
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			addPositive(requests, name, r.Requests)
			if !addPositive(limits, name, r.Limits) {
				guaranteed = false
			}
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	for name, limit := range limits {
		// A request that is not given is the limit, as the API server defaults it.
		if request, ok := requests[name]; ok && request.Cmp(limit) != 0 {
			guaranteed = false
		}
	}
	if guaranteed && len(requests) == len(limits) {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func addPositive(sum corev1.ResourceList, name corev1.ResourceName, from corev1.ResourceList) bool {
	q, ok := from[name]
	if !ok || q.Sign() <= 0 {
		return false
	}
	total := sum[name]
	total.Add(q)
	sum[name] = total
	return true
}

// scoreClass is the class that decides about a container's death. An injected sidecar has requests even in a pod that has none,
// so that only a Guaranteed pod keeps the class of its status.
func scoreClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass == corev1.PodQOSGuaranteed {
		return pod.Status.QOSClass
	}
	return computeQOS(pod)
}

// OOMScoreAdj returns what is added to the badness of a container's processes when the machine, whose memory is given in bytes,
// runs out of it. Among Burstable containers those that asked for much are spared longer.
func OOMScoreAdj(pod *corev1.Pod, c *corev1.Container, memory int64) int64 {
	if pod.Spec.PriorityClassName == nodeCritical && pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCriticalPriority {
		return guaranteedScore
	}
	switch scoreClass(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedScore
	case corev1.PodQOSBestEffort:
		return bestEffortScore
	}
	if memory <= 0 {
		return bestEffortScore - 1
	}
	share := sharedRequest(pod)
	score := 1000 - 1000*(c.Resources.Requests.Memory().Value()+share)/memory
	if isNativeSidecar(pod, c) {
		// A sidecar must not be killed before the containers that need it.
		score = min(score, 1000-1000*(leastRequest(pod)+share)/memory)
	}
	return min(max(score, 1000+guaranteedScore), bestEffortScore-1)
}

// systemCriticalPriority is the least priority of the two classes for system pods.
const systemCriticalPriority = 2000000000

// sharedRequest is each container's part of the memory that the pod as a whole requests beyond what its containers do.
func sharedRequest(pod *corev1.Pod) int64 {
	if !resourcehelper.IsPodLevelRequestsSet(pod) {
		return 0
	}
	count := len(pod.Spec.Containers)
	for i := range pod.Spec.InitContainers {
		if isNativeSidecar(pod, &pod.Spec.InitContainers[i]) {
			count++
		}
	}
	whole := memoryOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true}))
	parts := memoryOf(resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true}))
	whole.Sub(parts)
	if count == 0 || whole.Sign() <= 0 {
		return 0
	}
	return whole.Value() / int64(count)
}

func memoryOf(list corev1.ResourceList) resource.Quantity {
	return list[corev1.ResourceMemory].DeepCopy()
}

func isNativeSidecar(pod *corev1.Pod, c *corev1.Container) bool {
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		return false
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

func leastRequest(pod *corev1.Pod) int64 {
	least := int64(-1)
	for i := range pod.Spec.Containers {
		if m := pod.Spec.Containers[i].Resources.Requests.Memory().Value(); least < 0 || m < least {
			least = m
		}
	}
	return max(least, 0)
}
