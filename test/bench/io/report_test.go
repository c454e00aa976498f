package main

import (
	"strings"
	"testing"
)

func TestReportComparesMedians(t *testing.T) {
	r := newResults()
	for _, v := range []float64{100, 300, 200} {
		r.add(ours, []figure{{"read", "MB/s", v}})
		r.add(theirs, []figure{{"read", "MB/s", v / 2}}) // the same ratio in each round, whatever the machine was busy with
		r.add(passthrough, []figure{{"read", "MB/s", 90}})
		r.add(native, []figure{{"read", "MB/s", 100}})
	}
	if got := r.report(3); !strings.Contains(got, "| read | MB/s | 200 | 100 | 2.00 | 90 | 100 | 0.90 | 3.0 |\n") {
		t.Errorf("the row is wrong:\n%s", got)
	}
}
