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
func (r *results) median(name, place string) float64 { return middle(r.values[name][place]) }

// ratio is the median of the rounds' own ratios. What was measured seconds apart on a disturbed machine can be compared, medians of minutes
// less so.
func (r *results) ratio(name, place, to string) float64 {
	var all []float64
	others := r.values[name][to]
	for i, v := range r.values[name][place] {
		if i < len(others) && others[i] > 0 {
			all = append(all, v/others[i])
		}
	}
	return middle(all)
}

func middle(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(all))[len(all)/2]
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

// whereTheRestGoes explains what a file system in another process cannot have. The requests were counted with the kernel's tracepoint fuse:fuse_request_send.
const whereTheRestGoes = `Where the rest of (c)/(d) goes: names. A native directory answers from the kernel's own memory; for a passthrough volume each call is one or more requests to the
client, that is, two switches between processes each: stat is one (GETATTR), unlink two (UNLINK, and GETATTR of the directory, whose attributes the
kernel forgets with each change), create and close four (GETATTR of the directory, LOOKUP, CREATE, RELEASE), a listing of 500 names about ten. Reads and writes
take the kernel's short way and pay for their open only. In (a)/(b) both sides make the same requests of the
engine, which takes nearly all of the time of a change of names. Sidemount adds a record of its result in the session's memory; stock gives itself the scheduling
priority -19, which a client without privilege cannot. How much each of them is was not measured.
`

// report is the section of docs/benchmarks.md.
func (r *results) report(rounds int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "## Reads, writes and names (`make bench-io`)\n\n")
	fmt.Fprintf(&s, "%s, Linux %s, medians of %d rounds. In each round every row is measured in all four places right after each other,\n"+
		"and a ratio is the median of the rounds' ratios. All data, JuiceFS's metadata (SQLite) and objects (a directory) lie in memory. Both JuiceFS clients are of version 1.3.1 with the options `%s`.\n"+
		"Files of the passthrough volume are read and written by the kernel (FUSE passthrough, Linux 6.9); their names go through the client.\n\n", time.Now().UTC().Format("2006-01-02"), release(), rounds, strings.Join(clientOptions, ","))
	fmt.Fprintf(&s, "Four pods on the virtual node, with the same share of the processor:\n\n- (a) a JuiceFS volume, served by Sidemount's sidecar\n"+
		"- (b) stock `juicefs mount` in the pod's own privileged container\n- (c) a passthrough volume, served by Sidemount's sidecar\n- (d) a hostPath volume\n\n")
	fmt.Fprintf(&s, "| | unit | (a) | (b) | (a)/(b) | (c) | (d) | (c)/(d) | spread |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range r.order {
		a, b, c, d := r.median(f.Name, ours), r.median(f.Name, theirs), r.median(f.Name, passthrough), r.median(f.Name, native)
		fmt.Fprintf(&s, "| %s | %s | %.0f | %.0f | %.2f | %.0f | %.0f | %.2f | %.1f |\n", f.Name, f.Unit, a, b, r.ratio(f.Name, ours, theirs), c, d, r.ratio(f.Name, passthrough, native), r.spread(f.Name))
	}
	fmt.Fprintf(&s, "\nSpread is the largest figure of a row to the smallest one of the same place: how much the machine was disturbed.\n\n%s", whereTheRestGoes)
	return s.String()
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
