package main

import (
	"strings"
	"testing"
	"time"
)

func TestAimsNameTheRowsThatMissThem(t *testing.T) {
	ms := func(p50, p99 time.Duration) figures {
		return figures{p50 * time.Millisecond, p99 * time.Millisecond, p99 * time.Millisecond}
	}
	got := aims([]row{
		{Kind: "client", Client: "juicefs", Pause: ms(200, 400), OwnRatio: 1},
		{Kind: "agent", Client: "juicefs", Pause: ms(700, 1200), OwnRatio: 8.9},
		{Kind: "node", Client: "juicefs"}, // nobody waits
	})
	for _, want := range []string{
		"own start: met by 1 of 2 rows, missed by agent of juicefs (8.90)\n",
		"1000 ms: met by 1 of 2 rows, missed by agent of juicefs (1200 ms)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if got := aims([]row{{Kind: "client", Client: "juicefs", Pause: ms(200, 400), OwnRatio: 1.2}}); strings.Count(got, "met by all 1 rows") != 2 {
		t.Errorf("all is met: %q", got)
	}
	if got := aims(nil); got != "" {
		t.Errorf("nothing was measured: %q", got)
	}
}
