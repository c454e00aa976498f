package cri

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// PodStats returns what the node's running pods use, in the form of the kubelet's summary, sorted by namespace and name. Volumes
// are not the runtime's and not in it.
func (r *Runtime) PodStats(ctx context.Context) ([]stats.PodStats, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{
		Filter: &runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{NodeLabel: r.opts.Node}},
	})
	if err = wrap(err, "list stats of sandboxes"); errors.Is(err, ErrUnsupported) {
		return r.statsByContainer(ctx)
	}
	if err != nil {
		return nil, err
	}
	pods := make([]stats.PodStats, 0, len(resp.Stats))
	for _, s := range resp.Stats {
		pods = append(pods, podStats(s))
	}
	sortStats(pods)
	return pods, nil
}

// statsByContainer adds up containers for runtimes that do not count by sandbox.
func (r *Runtime) statsByContainer(ctx context.Context) ([]stats.PodStats, error) {
	resp, err := r.client.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{
		Filter: &runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{NodeLabel: r.opts.Node}},
	})
	if err != nil {
		return nil, wrap(err, "list stats of containers")
	}
	pods := map[string]*stats.PodStats{}
	for _, s := range resp.Stats {
		labels := s.GetAttributes().GetLabels()
		uid := labels[labelPodUID]
		p := pods[uid]
		if p == nil {
			p = &stats.PodStats{
				PodRef: stats.PodReference{Name: labels[labelPodName], Namespace: labels[labelPodNamespace], UID: uid},
				CPU:    &stats.CPUStats{}, Memory: &stats.MemoryStats{},
			}
			pods[uid] = p
		}
		c := containerStats(s)
		p.Containers = append(p.Containers, c)
		addCPU(p.CPU, c.CPU)
		addMemory(p.Memory, c.Memory)
	}
	out := make([]stats.PodStats, 0, len(pods))
	for _, p := range pods {
		out = append(out, *p)
	}
	sortStats(out)
	return out, nil
}

func sortStats(pods []stats.PodStats) {
	slices.SortFunc(pods, func(a, b stats.PodStats) int {
		return cmp.Or(cmp.Compare(a.PodRef.Namespace, b.PodRef.Namespace), cmp.Compare(a.PodRef.Name, b.PodRef.Name),
			cmp.Compare(a.PodRef.UID, b.PodRef.UID))
	})
	for _, p := range pods {
		slices.SortFunc(p.Containers, func(a, b stats.ContainerStats) int { return cmp.Compare(a.Name, b.Name) })
	}
}

func podStats(s *runtimeapi.PodSandboxStats) stats.PodStats {
	meta := s.GetAttributes().GetMetadata()
	p := stats.PodStats{
		PodRef:  stats.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
		CPU:     cpuStats(s.GetLinux().GetCpu()),
		Memory:  memoryStats(s.GetLinux().GetMemory()),
		Network: networkStats(s.GetLinux().GetNetwork()),
		IO:      ioStats(s.GetLinux().GetIo()),
	}
	if n := s.GetLinux().GetProcess().GetProcessCount(); n != nil {
		p.ProcessStats = &stats.ProcessStats{ProcessCount: &n.Value}
	}
	for _, c := range s.GetLinux().GetContainers() {
		p.Containers = append(p.Containers, containerStats(c))
	}
	return p
}

func containerStats(s *runtimeapi.ContainerStats) stats.ContainerStats {
	c := stats.ContainerStats{
		Name:   s.GetAttributes().GetMetadata().GetName(),
		CPU:    cpuStats(s.GetCpu()),
		Memory: memoryStats(s.GetMemory()),
		Swap:   swapStats(s.GetSwap()),
		IO:     ioStats(s.GetIo()),
	}
	if layer := s.GetWritableLayer(); layer != nil {
		c.Rootfs = &stats.FsStats{
			Time: at(layer.Timestamp), UsedBytes: value(layer.UsedBytes), InodesUsed: value(layer.InodesUsed),
		}
	}
	return c
}

func cpuStats(c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	return &stats.CPUStats{
		Time: at(c.Timestamp), UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds),
		PSI: psiStats(c.Psi),
	}
}

func memoryStats(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{
		Time: at(m.Timestamp), AvailableBytes: value(m.AvailableBytes), UsageBytes: value(m.UsageBytes),
		WorkingSetBytes: value(m.WorkingSetBytes), RSSBytes: value(m.RssBytes),
		PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults), PSI: psiStats(m.Psi),
	}
}

func swapStats(s *runtimeapi.SwapUsage) *stats.SwapStats {
	if s == nil {
		return nil
	}
	return &stats.SwapStats{Time: at(s.Timestamp), SwapAvailableBytes: value(s.SwapAvailableBytes), SwapUsageBytes: value(s.SwapUsageBytes)}
}

func ioStats(i *runtimeapi.IoUsage) *stats.IOStats {
	if i == nil {
		return nil
	}
	return &stats.IOStats{Time: at(i.Timestamp), PSI: psiStats(i.Psi)}
}

func psiStats(p *runtimeapi.PsiStats) *stats.PSIStats {
	if p == nil {
		return nil
	}
	return &stats.PSIStats{Full: psiData(p.Full), Some: psiData(p.Some)}
}

func psiData(d *runtimeapi.PsiData) stats.PSIData {
	return stats.PSIData{Total: d.GetTotal(), Avg10: d.GetAvg10(), Avg60: d.GetAvg60(), Avg300: d.GetAvg300()}
}

func networkStats(n *runtimeapi.NetworkUsage) *stats.NetworkStats {
	if n == nil {
		return nil
	}
	out := &stats.NetworkStats{Time: at(n.Timestamp)}
	if n.DefaultInterface != nil {
		out.InterfaceStats = interfaceStats(n.DefaultInterface)
		out.Interfaces = append(out.Interfaces, out.InterfaceStats)
	}
	for _, i := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, interfaceStats(i))
	}
	return out
}

func interfaceStats(i *runtimeapi.NetworkInterfaceUsage) stats.InterfaceStats {
	return stats.InterfaceStats{
		Name: i.Name, RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors), TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors),
	}
}

func addCPU(sum, more *stats.CPUStats) {
	if more == nil {
		return
	}
	sum.Time = more.Time
	sum.UsageNanoCores = add(sum.UsageNanoCores, more.UsageNanoCores)
	sum.UsageCoreNanoSeconds = add(sum.UsageCoreNanoSeconds, more.UsageCoreNanoSeconds)
}

func addMemory(sum, more *stats.MemoryStats) {
	if more == nil {
		return
	}
	sum.Time = more.Time
	sum.UsageBytes = add(sum.UsageBytes, more.UsageBytes)
	sum.WorkingSetBytes = add(sum.WorkingSetBytes, more.WorkingSetBytes)
	sum.RSSBytes = add(sum.RSSBytes, more.RSSBytes)
}

func add(sum, more *uint64) *uint64 {
	if more == nil {
		return sum
	}
	total := *more
	if sum != nil {
		total += *sum
	}
	return &total
}

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func at(nanos int64) metav1.Time {
	return metav1.NewTime(time.Unix(0, nanos))
}
