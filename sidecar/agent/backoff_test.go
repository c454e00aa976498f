package agent

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	const never, early, late, long = 0, 10 * time.Millisecond, 2 * time.Second, time.Hour
	for _, c := range []struct {
		name   string
		served []time.Duration
		want   []time.Duration
	}{
		{"cannot start", []time.Duration{never, never, never}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}},
		{"dies early", []time.Duration{early, early, early, early, early}, []time.Duration{0, 0, 0, 100 * time.Millisecond, 200 * time.Millisecond}},
		{"dies now and then", []time.Duration{late, late, late, late, late, late}, []time.Duration{0, 0, 0, 0, 0, 0}},
		{"recovers", []time.Duration{never, never, long, never}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 0, 100 * time.Millisecond}},
	} {
		b := backoff{burst: 3}
		for i, served := range c.served {
			if got := b.next(served); got != c.want[i] {
				t.Errorf("%s, failure %d: pause %s, want %s", c.name, i, got, c.want[i])
			}
		}
	}
	b := backoff{}
	for range 100 {
		b.next(never)
	}
	if got := b.next(never); got != longestPause {
		t.Errorf("after many failures: %s, want %s", got, longestPause)
	}
}
