package docs

import (
	"slices"
	"testing"
)

// What is found by reading the code is only as good as the reading; these are in it for certain.
func TestSourceIsRead(t *testing.T) {
	s, err := ReadSource()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"SessionLost", "ClientRestarted", "SecretInvalid", "FailedMount", "VolumeSettingIgnored", "Unhealthy"} {
		if !s.Events[r] {
			t.Errorf("event %s is not found", r)
		}
	}
	for _, k := range []string{"sidemount.io/inject", "sidemount.io/serverless", "juicefs/mount-image", "sidemount.io/run-as-user"} {
		if !s.Keys[k] {
			t.Errorf("key %s is not found", k)
		}
	}
	i := slices.IndexFunc(s.Metrics, func(m Metric) bool { return m.Name == "sidemount_csi_call_seconds" })
	if i < 0 || s.Metrics[i].Kind != "histogram" || !slices.Equal(s.Metrics[i].Labels, []string{"method", "code"}) || s.Metrics[i].Help == "" {
		t.Errorf("metrics: %+v", s.Metrics)
	}
	t.Logf("%d events, %d keys, %d metrics", len(s.Events), len(s.Keys), len(s.Metrics))
}
