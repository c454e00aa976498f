package main

import (
	"maps"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount/broker"
)

func TestRestartsAreCountedByFewCauses(t *testing.T) {
	m := newMetrics()
	for _, cause := range []string{"oom", "signal: killed", "signal: segmentation fault", "exit status 1", "exit status 255", "hung", "hung while starting", "agent ended", "upgrade failed", "client's own word"} {
		m.sessionEvent(broker.Event{Reason: broker.ClientRestarted, Cause: cause, Pause: time.Millisecond})
	}
	m.sessionEvent(broker.Event{Reason: broker.ClientUpgraded, Pause: time.Millisecond})
	m.sessionEvent(broker.Event{Reason: broker.ClientFailed, Cause: "oom"})
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, sample := range f.GetMetric() {
			for _, l := range sample.GetLabel() {
				switch f.GetName() {
				case "sidemount_client_restarts_total":
					got[l.GetValue()] = sample.GetCounter().GetValue()
				case "sidemount_session_pause_seconds":
					got["pause "+l.GetValue()] = float64(sample.GetHistogram().GetSampleCount())
				}
			}
		}
	}
	want := map[string]float64{
		"oom": 1, "signal": 2, "exit": 2, "hung": 2, "agent": 1, "upgrade-failed": 1, "other": 1, "upgrade": 1, "pause restart": 10, "pause upgrade": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
