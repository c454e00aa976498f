package main

import (
	"fmt"
	"strings"
	"time"
)

// What a pause should be at most. They are told, and no reason to fail: the machine may be slow or busy.
const (
	// aimRatio is the median pause as a ratio to what the client that ends it takes to start.
	aimRatio = 1.2
	// aimP99 is the 99th percentile of the pauses.
	aimP99 = time.Second
)

// aims tells which rows miss what a pause should be.
func aims(rows []row) string {
	var slow, long []string
	measured := 0
	for _, w := range rows {
		if w.Pause.Max == 0 {
			continue
		}
		measured++
		name := w.Kind + " of " + w.Client
		if w.OwnRatio > aimRatio {
			slow = append(slow, fmt.Sprintf("%s (%.2f)", name, w.OwnRatio))
		}
		if w.Pause.P99 > aimP99 {
			long = append(long, fmt.Sprintf("%s (%d ms)", name, w.Pause.P99.Milliseconds()))
		}
	}
	if measured == 0 {
		return ""
	}
	return fmt.Sprintf("aim, p50 at most %.1f of the client's own start: %s\naim, p99 at most %d ms: %s\n",
		aimRatio, missed(measured, slow), aimP99.Milliseconds(), missed(measured, long))
}

func missed(measured int, by []string) string {
	if len(by) == 0 {
		return fmt.Sprintf("met by all %d rows", measured)
	}
	return fmt.Sprintf("met by %d of %d rows, missed by %s", measured-len(by), measured, strings.Join(by, ", "))
}
