package provider

import (
	"testing"
	"time"
)

func TestPausesBetweenRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		of   pauses
		want []time.Duration
	}{
		"a container of the pod": {crashPauses, []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second}},
		"an injected sidecar":    {sidecarPauses, []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			b := crashBackoff{of: c.of}
			now := time.Unix(1000, 0)
			for i, want := range c.want {
				due := b.until(now)
				if want == 0 && !due.IsZero() || want > 0 && due.Sub(now) != want {
					t.Errorf("restart %d is due at %v, want %s after its end", i+1, due, want)
				}
				adopted := crashBackoff{of: c.of}
				if adopted.adopt(uint32(i), b.restarts); adopted != b {
					t.Errorf("after %d restarts another process has %+v, want %+v", i, adopted, b)
				}
				b.restarted(now.Add(want), now)
				now = now.Add(want + time.Second)
			}
			for range 20 {
				b.restarted(now, now)
			}
			if got := b.until(now).Sub(now); got != c.of.longest {
				t.Errorf("after many restarts the pause is %s, want %s", got, c.of.longest)
			}
			if got := b.until(now.Add(c.of.reset + time.Second)); !got.IsZero() {
				t.Errorf("after a long life the pause is not over: %v", got)
			}
		})
	}
}
