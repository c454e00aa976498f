package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

// sessionCensus counts the sessions that there are at the moment of a scrape, and what their clients did again.
type sessionCensus struct{ sessions *broker.Broker }

var (
	resentDesc   = prometheus.NewDesc("sidemount_resent_requests_total", "Requests that the kernel sent once more, because a client had died over them", nil, nil)
	replayedDesc = prometheus.NewDesc("sidemount_replayed_bytes_total", "Bytes of acknowledged writes that a client had not stored when it died, and the next one has written", nil, nil)
	sessionsDesc = prometheus.NewDesc("sidemount_sessions", "FUSE sessions by state", []string{"state"}, nil)
)

func (sessionCensus) Describe(descs chan<- *prometheus.Desc) {
	descs <- sessionsDesc
	descs <- resentDesc
	descs <- replayedDesc
}

func (c sessionCensus) Collect(out chan<- prometheus.Metric) {
	states := map[string]int{string(mount.Mounted): 0, string(mount.Attached): 0, string(mount.Orphaned): 0}
	for _, s := range c.sessions.Sessions() {
		states[string(s.State)]++
	}
	requests, bytes := c.sessions.Redone()
	out <- prometheus.MustNewConstMetric(resentDesc, prometheus.CounterValue, float64(requests))
	out <- prometheus.MustNewConstMetric(replayedDesc, prometheus.CounterValue, float64(bytes))
	for state, count := range states {
		out <- prometheus.MustNewConstMetric(sessionsDesc, prometheus.GaugeValue, float64(count), state)
	}
}
