package cgroup

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/sidemount/sidemount/provider/cri"
)

// limits are what a pod as a whole may use.
type limits struct {
	// shares is the CPU weight in the units of version 1, at least 2.
	shares int64
	// quota and period are in microseconds; quota 0 means no limit.
	quota, period int64
	// memory is in bytes; 0 means no limit.
	memory int64
	// hugepages is in bytes by page size, "2MB".
	hugepages map[string]int64
}

// podLimits are the sums over the pod's containers. CPU and memory are limited only if each container is, because one without a
// limit may use what the others leave.
func podLimits(pod *corev1.Pod) limits {
	cpuLimited, memoryLimited := true, true
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	sums := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{
		ContainerFn: func(l corev1.ResourceList, _ resourcehelper.ContainerType) {
			cpuLimited = cpuLimited && !l.Cpu().IsZero()
			memoryLimited = memoryLimited && !l.Memory().IsZero()
		},
	})
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		cpuLimited = cpuLimited || !pod.Spec.Resources.Limits.Cpu().IsZero()
		memoryLimited = memoryLimited || !pod.Spec.Resources.Limits.Memory().IsZero()
	}
	l := limits{shares: cri.MilliToShares(requests.Cpu().MilliValue()), period: cri.QuotaPeriod, hugepages: hugepages(requests)}
	if cpuLimited {
		l.quota = cri.MilliToQuota(sums.Cpu().MilliValue())
	}
	if memoryLimited {
		l.memory = sums.Memory().Value()
	}
	return l
}

func hugepages(requests corev1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for name, q := range requests {
		size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}
		if page, err := resource.ParseQuantity(size); err == nil {
			out[cri.PageSizeName(page.Value())] = q.Value()
		}
	}
	return out
}
