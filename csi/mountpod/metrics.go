package mountpod

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidemount/sidemount/mount/broker"
)

var _ prometheus.Collector = (*Keeper)(nil)

// metrics of a keeper.
type metrics struct {
	shares, references *prometheus.Desc
	acquire            *prometheus.HistogramVec
	replacements       *prometheus.CounterVec
	clients            *prometheus.CounterVec
	pauses             prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		shares:     prometheus.NewDesc("sidemount_mountpod_shares", "Shares of this node, each with a session and a Mount Pod.", nil, nil),
		references: prometheus.NewDesc("sidemount_mountpod_references", "Targets of this node that use a share.", nil, nil),
		acquire: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sidemount_mountpod_acquire_seconds", Help: "Time until a client served the volume of a publish, by the start it needed and its result.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"start", "result"}),
		replacements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidemount_mountpod_replacements_total", Help: "Mount Pods that were replaced while they had users, by the cause of their end.",
		}, []string{"cause"}),
		clients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidemount_mountpod_session_events_total", Help: "What happened to sessions, by reason.",
		}, []string{"reason"}),
		pauses: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sidemount_mountpod_pause_seconds", Help: "How long requests waited for the next client.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
}

func (m *metrics) acquired(cold bool, err error, took time.Duration) {
	start, result := "shared", "ok"
	if cold {
		start = "cold"
	}
	if err != nil {
		result = "error"
	}
	m.acquire.WithLabelValues(start, result).Observe(took.Seconds())
}

func (m *metrics) replaced(cause string) { m.replacements.WithLabelValues(cause).Inc() }

func (m *metrics) event(e broker.Event) {
	m.clients.WithLabelValues(string(e.Reason)).Inc()
	if e.Reason == broker.ClientRestarted || e.Reason == broker.ClientUpgraded {
		m.pauses.Observe(e.Pause.Seconds())
	}
}

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(ch chan<- *prometheus.Desc) {
	ch <- k.metrics.shares
	ch <- k.metrics.references
	for _, c := range k.metrics.vectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (k *Keeper) Collect(ch chan<- prometheus.Metric) {
	k.mu.Lock()
	shares, references := len(k.shares), len(k.references)
	k.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(k.metrics.shares, prometheus.GaugeValue, float64(shares))
	ch <- prometheus.MustNewConstMetric(k.metrics.references, prometheus.GaugeValue, float64(references))
	for _, c := range k.metrics.vectors() {
		c.Collect(ch)
	}
}

func (m *metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{m.acquire, m.replacements, m.clients, m.pauses}
}
