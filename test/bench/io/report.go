package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are all figures: by their name, by place, one per round.
type results struct {
	order  []figure // names and units, as load reports them
	values map[string]map[string][]float64
}

func newResults() *results { return &results{values: map[string]map[string][]float64{}} }

func (r *results) add(place string, figures []figure) {
	for _, f := range figures {
		if r.values[f.Name] == nil {
			r.order = append(r.order, figure{Name: f.Name, Unit: f.Unit})
			r.values[f.Name] = map[string][]float64{}
		}
		r.values[f.Name][place] = append(r.values[f.Name][place], f.Value)
	}
}

// median of what was measured at a place; 0 for nothing.
func (r *results) median(name, place string) float64 {
	all := slices.Sorted(slices.Values(r.values[name][place]))
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

// spread is the largest figure to the smallest, over all places: how far to trust a ratio.
func (r *results) spread(name string) float64 {
	worst := 1.0
	for _, all := range r.values[name] {
		if least := slices.Min(all); least > 0 {
			worst = max(worst, slices.Max(all)/least)
		}
	}
	return worst
}

// report is the section of docs/benchmarks.md.
func (r *results) report(rounds int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "## Reads, writes and names (`make bench-io`)\n\n")
	fmt.Fprintf(&s, "%s, Linux %s, medians of %d rounds; each round measures all places in turn. All data, JuiceFS's metadata (SQLite)\n"+
		"and objects (a directory) lie in memory. Both JuiceFS clients are of version 1.3.1 with the options `%s`.\nThe passthrough client "+
		"does not use FUSE passthrough: every read goes through it.\n\n", time.Now().UTC().Format("2006-01-02"), release(), rounds, strings.Join(clientOptions, ","))
	fmt.Fprintf(&s, "- (a) in a pod, through Sidemount's JuiceFS client\n- (b) on the host, stock `juicefs mount`\n"+
		"- (c) in a pod, through Sidemount's passthrough client\n- (d) on the host, the directory itself\n\n")
	fmt.Fprintf(&s, "| | unit | (a) | (b) | (a)/(b) | (c) | (d) | (c)/(d) | spread |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range r.order {
		a, b, c, d := r.median(f.Name, ours), r.median(f.Name, theirs), r.median(f.Name, passthrough), r.median(f.Name, native)
		fmt.Fprintf(&s, "| %s | %s | %.0f | %.0f | %.2f | %.0f | %.0f | %.2f | %.1f |\n", f.Name, f.Unit, a, b, ratio(a, b), c, d, ratio(c, d), r.spread(f.Name))
	}
	fmt.Fprintf(&s, "\nSpread is the largest figure of a row to the smallest one of the same place: how much the machine was disturbed.\n")
	return s.String()
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
