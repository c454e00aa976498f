package node

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/virtual-kubelet/virtual-kubelet/log"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	serveGatherer(w, r, s.options.Metrics)
}

func (s *Server) serveProbeMetrics(w http.ResponseWriter, r *http.Request) {
	serveGatherer(w, r, s.options.ProbeMetrics)
}

func (s *Server) serveResourceMetrics(w http.ResponseWriter, r *http.Request) {
	if s.options.Stats == nil {
		unserved(w)
		return
	}
	serveGatherer(w, r, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return s.gatherResources(r.Context()), nil
	}))
}

func serveGatherer(w http.ResponseWriter, r *http.Request, g prometheus.Gatherer) {
	if g == nil {
		unserved(w)
		return
	}
	promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
}

func (s *Server) gatherResources(ctx context.Context) []*dto.MetricFamily {
	summary, err := s.options.Stats.Summary(ctx)
	if err != nil {
		log.G(ctx).WithError(err).Warn("resource metrics not measured")
		return []*dto.MetricFamily{scrapeError(1)}
	}
	return append(ResourceMetrics(summary), scrapeError(0))
}

func scrapeError(value float64) *dto.MetricFamily {
	f := newFamily("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", dto.MetricType_GAUGE)
	f.add(value, time.Time{})
	return f.MetricFamily
}

// ResourceMetrics turns a summary into the families of /metrics/resource, the endpoint that metrics-server reads
// (https://kubernetes.io/docs/reference/instrumentation/metrics/). Labels keep the order container, pod, namespace; families
// without a sample are left out. It is pure.
func ResourceMetrics(s *statsv1alpha1.Summary) []*dto.MetricFamily {
	nodeCPU := newFamily("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", dto.MetricType_COUNTER)
	nodeMemory := newFamily("node_memory_working_set_bytes", "Current working set of the node in bytes", dto.MetricType_GAUGE)
	podCPU := newFamily("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", dto.MetricType_COUNTER)
	podMemory := newFamily("pod_memory_working_set_bytes", "Current working set of the pod in bytes", dto.MetricType_GAUGE)
	cpu := newFamily("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", dto.MetricType_COUNTER)
	mem := newFamily("container_memory_working_set_bytes", "Current working set of the container in bytes", dto.MetricType_GAUGE)
	start := newFamily("container_start_time_seconds", "Start time of the container since unix epoch in seconds", dto.MetricType_GAUGE)

	nodeCPU.addCPU(s.Node.CPU)
	nodeMemory.addMemory(s.Node.Memory)
	for _, pod := range s.Pods {
		labels := []string{"pod", pod.PodRef.Name, "namespace", pod.PodRef.Namespace}
		podCPU.addCPU(pod.CPU, labels...)
		podMemory.addMemory(pod.Memory, labels...)
		for _, c := range pod.Containers {
			labels := append([]string{"container", c.Name}, labels...)
			cpu.addCPU(c.CPU, labels...)
			mem.addMemory(c.Memory, labels...)
			if c.StartTime.Unix() > 0 {
				start.add(float64(c.StartTime.UnixNano())/float64(time.Second), time.Time{}, labels...)
			}
		}
	}
	var families []*dto.MetricFamily
	for _, f := range []family{nodeCPU, nodeMemory, podCPU, podMemory, cpu, mem, start} {
		if len(f.Metric) > 0 {
			families = append(families, f.MetricFamily)
		}
	}
	return families
}

// family builds a metric family sample by sample.
type family struct{ *dto.MetricFamily }

func newFamily(name, help string, kind dto.MetricType) family {
	return family{&dto.MetricFamily{Name: &name, Help: &help, Type: kind.Enum()}}
}

func (f family) addCPU(s *statsv1alpha1.CPUStats, labels ...string) {
	if s != nil && s.UsageCoreNanoSeconds != nil {
		f.add(float64(*s.UsageCoreNanoSeconds)/float64(time.Second), s.Time.Time, labels...)
	}
}

func (f family) addMemory(s *statsv1alpha1.MemoryStats, labels ...string) {
	if s != nil && s.WorkingSetBytes != nil {
		f.add(float64(*s.WorkingSetBytes), s.Time.Time, labels...)
	}
}

// add appends a sample; labels are names and values in turn. A zero time leaves the timestamp to the scraper.
func (f family) add(value float64, at time.Time, labels ...string) {
	m := &dto.Metric{}
	for i := 0; i+1 < len(labels); i += 2 {
		m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
	}
	if *f.Type == dto.MetricType_COUNTER {
		m.Counter = &dto.Counter{Value: &value}
	} else {
		m.Gauge = &dto.Gauge{Value: &value}
	}
	if !at.IsZero() {
		ms := at.UnixMilli()
		m.TimestampMs = &ms
	}
	f.Metric = append(f.Metric, m)
}
