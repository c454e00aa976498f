package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // calls to the API server
	_ "k8s.io/component-base/metrics/prometheus/workqueue"  // queues of the Kubernetes libraries

	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/node"
	"github.com/sidemount/sidemount/provider"
)

// metrics are the node's own figures; those of the process and the Kubernetes libraries come from their registry.
type metrics struct {
	registry *prometheus.Registry
	start    prometheus.Histogram
	events   *prometheus.CounterVec
	restarts *prometheus.CounterVec
	pause    *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		start: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sidemount_pod_start_seconds",
			Help:    "Time from the node learning of a pod until it runs for the first time",
			Buckets: []float64{0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300},
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidemount_session_events_total",
			Help: "Changes of FUSE sessions by reason",
		}, []string{"reason"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidemount_client_restarts_total",
			Help: "Clients that took over a volume from one before, by what ended that one: oom, signal, exit, hung, agent, upgrade, upgrade-failed, other",
		}, []string{"cause"}),
		pause: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sidemount_session_pause_seconds",
			Help:    "Time that requests waited for a new client after the end of the one before, by reason: restart or upgrade",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
		}, []string{"reason"}),
	}
	m.registry.MustRegister(m.start, m.events, m.restarts, m.pause, buildInfo())
	return m
}

func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sidemount_build_info", Help: "Always 1; the version is a label", ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
}

func (m *metrics) podRunning(_ *corev1.Pod, after time.Duration) { m.start.Observe(after.Seconds()) }

func (m *metrics) sessionEvent(e broker.Event) {
	m.events.WithLabelValues(string(e.Reason)).Inc()
	switch e.Reason {
	case broker.ClientRestarted:
		m.restarts.WithLabelValues(causeLabel(e.Cause)).Inc()
		m.pause.WithLabelValues("restart").Observe(e.Pause.Seconds())
	case broker.ClientUpgraded:
		m.restarts.WithLabelValues("upgrade").Inc()
		m.pause.WithLabelValues("upgrade").Observe(e.Pause.Seconds())
	}
}

// causeLabel makes one of a few words of what ended a client, which is made by clients and has no bound.
func causeLabel(cause string) string {
	for prefix, label := range map[string]string{
		"oom": "oom", "signal:": "signal", "exit status": "exit", "hung": "hung", "agent ended": "agent", "upgrade failed": "upgrade-failed",
	} {
		if strings.HasPrefix(cause, prefix) {
			return label
		}
	}
	return "other"
}

// watch has pods and sessions counted at each scrape.
func (m *metrics) watch(engine *provider.Engine, sessions *broker.Broker) {
	m.registry.MustRegister(podCensus{engine}, sessionCensus{sessions})
}

func (m *metrics) gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{m.registry, legacyregistry.DefaultGatherer}
}

// podCensus counts the pods that there are at the moment of a scrape.
type podCensus struct{ engine *provider.Engine }

var podsDesc = prometheus.NewDesc("sidemount_pods", "Pods on this node by phase", []string{"phase"}, nil)

func (podCensus) Describe(descs chan<- *prometheus.Desc) { descs <- podsDesc }

func (c podCensus) Collect(out chan<- prometheus.Metric) {
	phases := map[string]int{"Pending": 0, "Running": 0, "Succeeded": 0, "Failed": 0}
	for _, view := range c.engine.Views() {
		if view.Status != nil && view.Status.Phase != "" {
			phases[string(view.Status.Phase)]++
		}
	}
	for phase, count := range phases {
		out <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(count), phase)
	}
}

// metricsServer is for a scraper or a prober on this host that has no credentials.
type metricsServer struct {
	address  string
	gatherer prometheus.Gatherer
	// checks are for /healthz, readiness what /readyz asks besides.
	checks, readiness []node.HealthCheck
}

// Run serves until ctx ends.
func (s metricsServer) Run(ctx context.Context) error {
	server := &http.Server{Addr: s.address, Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s metricsServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /healthz", runChecks(s.checks))
	mux.HandleFunc("GET /readyz", runChecks(slices.Concat(s.checks, s.readiness)))
	return mux
}

// runChecks tells the first check that fails.
func runChecks(checks []node.HealthCheck) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, c := range checks {
			if err := c.Check(r.Context()); err != nil {
				http.Error(w, c.Name+": "+err.Error(), http.StatusInternalServerError)
				return
			}
		}
		fmt.Fprint(w, "ok")
	}
}
