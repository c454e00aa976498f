// Package bench computes and writes down what the benchmarks measured. The programs below it do the measuring.
package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Median of a set of durations; 0 for an empty one.
func Median(all []time.Duration) time.Duration { return Percentile(all, 50) }

// Percentile of a set of durations by the nearest-rank method; p in 1 to 100.
func Percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

// Write replaces the section of that name in a Markdown file, or appends it, and leaves the other sections alone.
func Write(file, name, body string) error {
	raw, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	begin, end := fmt.Sprintf("<!-- %s: begin -->", name), fmt.Sprintf("<!-- %s: end -->", name)
	section := begin + "\n" + strings.TrimSpace(body) + "\n" + end
	text := string(raw)
	if text == "" {
		text = "# Benchmarks\n\nEach section is written by the harness that its first line names. Compare the ratios: the columns of a table were\nmeasured side by side in one run, on whatever machine it was.\n"
	}
	if i, j := strings.Index(text, begin), strings.Index(text, end); i >= 0 && j > i {
		text = text[:i] + section + text[j+len(end):]
	} else {
		text = strings.TrimRight(text, "\n") + "\n\n" + section + "\n"
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
