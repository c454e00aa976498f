package cri

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's limits and the kubelet's choices for the CPU controller.
const (
	minShares    = 2
	maxShares    = 262144
	sharesPerCPU = 1024
	// minQuota is in microseconds.
	minQuota = 1000
)

// QuotaPeriod is how often a CPU quota is replenished, in microseconds.
const QuotaPeriod = 100000

// MilliToShares converts thousandths of a CPU to cpu.shares; none becomes the least, so that it yields to everybody else.
func MilliToShares(milli int64) int64 {
	return min(max(milli*sharesPerCPU/1000, minShares), maxShares)
}

func sharesToMilli(shares int64) int64 {
	if shares <= minShares {
		return 0
	}
	// Rounded up: MilliToShares rounds down, and the way back must end where it began.
	return (shares*1000 + sharesPerCPU - 1) / sharesPerCPU
}

// MilliToQuota converts thousandths of a CPU to microseconds in each period of 100 ms; 0 means no quota.
func MilliToQuota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*QuotaPeriod/1000, minQuota)
}

// ContainerResources returns the limits of a container as the kubelet computes them.
func ContainerResources(pod *corev1.Pod, c *corev1.Container, host Host) *runtimeapi.LinuxContainerResources {
	limit := func(name corev1.ResourceName) resource.Quantity {
		q := c.Resources.Limits[name]
		if q.IsZero() && resourcehelper.IsPodLevelResourcesSet(pod) {
			// A container without a limit may use the pod's.
			return pod.Spec.Resources.Limits[name]
		}
		return q
	}
	cpu, memory := limit(corev1.ResourceCPU), limit(corev1.ResourceMemory)
	request, requested := c.Resources.Requests[corev1.ResourceCPU]
	if !requested {
		request = cpu
	}
	r := linuxResources(request, cpu, memory, host)
	r.OomScoreAdj = OOMScoreAdj(pod, c, host.Memory)
	r.HugepageLimits = hugePageLimits(pod, c, host)
	disableSwap(r, host)
	return r
}

// oomGroup makes the kernel kill all processes of a control group of version 2 together.
const oomGroup = "memory.oom.group"

func linuxResources(cpuRequest, cpuLimit, memoryLimit resource.Quantity, host Host) *runtimeapi.LinuxContainerResources {
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          MilliToShares(cpuRequest.MilliValue()),
		CpuQuota:           MilliToQuota(cpuLimit.MilliValue()),
		CpuPeriod:          QuotaPeriod,
		MemoryLimitInBytes: memoryLimit.Value(),
	}
	if host.CgroupV2 {
		// Out of memory, a container dies as a whole: half a container is worse than none.
		r.Unified = map[string]string{oomGroup: "1"}
	}
	return r
}

// disableSwap is the kubelet's default for pods. Version 1 counts swap together with memory.
func disableSwap(r *runtimeapi.LinuxContainerResources, host Host) {
	if !host.SwapAccounting {
		return
	}
	if !host.CgroupV2 {
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		return
	}
	if r.Unified == nil {
		r.Unified = map[string]string{}
	}
	r.Unified["memory.swap.max"] = "0"
}

// hugePageLimits sets every page size that the machine has, those that are not asked for to 0. A container's own limit is
// stronger than its pod's.
func hugePageLimits(pod *corev1.Pod, c *corev1.Container, host Host) []*runtimeapi.HugepageLimit {
	wanted := map[string]uint64{}
	add := func(list corev1.ResourceList) {
		for name, q := range list {
			size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
			if !ok {
				continue
			}
			if page, err := resource.ParseQuantity(size); err == nil {
				wanted[PageSizeName(page.Value())] = uint64(q.Value())
			}
		}
	}
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		add(pod.Spec.Resources.Limits)
	}
	add(c.Resources.Limits)
	limits := make([]*runtimeapi.HugepageLimit, len(host.HugePageSizes))
	for i, size := range host.HugePageSizes {
		limits[i] = &runtimeapi.HugepageLimit{PageSize: size, Limit: wanted[size]}
	}
	return limits
}

// sandboxResources are the sums over the pod, which runtimes with a virtual machine per pod size it by.
func sandboxResources(pod *corev1.Pod, host Host) *runtimeapi.LinuxContainerResources {
	opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
	requests, limits := resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts)
	cpu, requested := requests[corev1.ResourceCPU]
	if !requested {
		cpu = limits[corev1.ResourceCPU]
	}
	return linuxResources(cpu, limits[corev1.ResourceCPU], limits[corev1.ResourceMemory], host)
}

// overheadResources are what the RuntimeClass adds for the sandbox itself; request and limit are the same.
func overheadResources(pod *corev1.Pod, host Host) *runtimeapi.LinuxContainerResources {
	if pod.Spec.Overhead == nil {
		return &runtimeapi.LinuxContainerResources{}
	}
	cpu := pod.Spec.Overhead[corev1.ResourceCPU]
	return linuxResources(cpu, cpu, pod.Spec.Overhead[corev1.ResourceMemory], host)
}
