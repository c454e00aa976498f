package mountpod_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
)

// median reports the median of what an operation took, which a few slow ones do not hide.
func median(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
}

func BenchmarkSharedAcquire(b *testing.B) {
	n := mountpodtest.Start(b)
	m := mountpodtest.Passthrough(b, "pv-1", n.Data, nil)
	acquire(b, n, m, "first")
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		acquire(b, n, m, fmt.Sprint("user-", i))
		took = append(took, time.Since(began))
	}
	median(b, took)
}

func BenchmarkColdAcquire(b *testing.B) {
	n := mountpodtest.Start(b)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		m := mountpodtest.Passthrough(b, fmt.Sprint("pv-", i), n.Data, nil)
		user := fmt.Sprint("user-", i)
		began := time.Now()
		s := acquire(b, n, m, user)
		took = append(took, time.Since(began))
		b.StopTimer()
		release(b, n, user)
		eventually(b, "the share has ended", gone(n, s))
		b.StartTimer()
	}
	median(b, took)
}
