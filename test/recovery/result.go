package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/test/bench"
	"github.com/sidemount/sidemount/test/recovery/report"
)

// result is what a trial has shown.
type result struct {
	Seed   uint64    `json:"seed"`
	Only   string    `json:"only,omitempty"` // the kinds that were asked for
	Wanted int       `json:"wanted"`
	Kernel string    `json:"kernel"`
	Date   time.Time `json:"date"`
	// Seconds is how long the workloads ran.
	Seconds    float64 `json:"seconds"`
	Operations int64   `json:"operations"`
	Errors     int     `json:"errors"`
	Lost       int64   `json:"lostBytes"`
	// ColdStart is how long the first client of a pod took, by the client's kind; the longest if there are several.
	ColdStart map[string]time.Duration `json:"coldStartNs"`
	// Undisturbed is the longest operation by the client's kind while nobody killed anything.
	Undisturbed map[string]time.Duration  `json:"undisturbedNs"`
	Rows        []row                     `json:"rows"`
	Kills       []kill                    `json:"kills"`
	Workloads   map[string]*report.Report `json:"workloads"`
}

// row sums up the kills of one kind on one kind of client.
type row struct {
	Kind   string `json:"kind"`
	Client string `json:"client"`
	Kills  int    `json:"kills"`
	// Pause is by the node's log, Stall by the workloads' own clock.
	Pause figures `json:"pause"`
	Stall figures `json:"stall"`
	// Ratio is the median pause to the client's cold start, which is the first start of a pod's client.
	Ratio float64 `json:"ratio"`
	// OwnRatio is the median ratio of a pause to what the client that ended it took to start: what recovery costs besides.
	OwnRatio float64 `json:"ownRatio"`
}

// clientKinds are the kinds of subjects, in the order of the table.
var clientKinds = []string{"juicefs", "passthrough", onMountPod}

type figures struct {
	P50 time.Duration `json:"p50Ns"`
	P99 time.Duration `json:"p99Ns"`
	Max time.Duration `json:"maxNs"`
}

func figuresOf(all []time.Duration) figures {
	return figures{bench.Median(all), bench.Percentile(all, 99), bench.Percentile(all, 100)}
}

func (f figures) String() string {
	return fmt.Sprintf("%6d %6d %6d", f.P50.Milliseconds(), f.P99.Milliseconds(), f.Max.Milliseconds())
}

func (t *trial) result() *result {
	r := &result{
		Seed: t.seed, Only: t.only, Wanted: t.kills, Kernel: kernel(), Date: time.Now().UTC().Truncate(time.Second), Seconds: t.quiet.Sub(t.steady).Seconds(),
		ColdStart: map[string]time.Duration{}, Undisturbed: map[string]time.Duration{}, Workloads: map[string]*report.Report{},
	}
	for _, s := range t.subjects {
		r.Kills = append(r.Kills, s.kills...)
		r.ColdStart[s.kind] = max(r.ColdStart[s.kind], s.coldStart)
		r.Undisturbed[s.kind] = max(r.Undisturbed[s.kind], undisturbed(t.reportsOf(s), t.steady, s.kills))
	}
	for name, w := range t.reports {
		r.Operations += w.Total()
		r.Errors += w.Failures
		r.Lost += w.Lost
		brief := *w
		brief.Stalls, brief.Files = nil, nil
		r.Workloads[name] = &brief
	}
	r.Rows = rowsOf(r.Kills, t.everyKind(), r.ColdStart)
	return r
}

// undisturbed is the longest operation that lies between two kills as a whole.
func undisturbed(reports []*report.Report, from time.Time, kills []kill) time.Duration {
	var longest time.Duration
	for _, r := range reports {
		for _, s := range r.Stalls {
			met := slices.ContainsFunc(kills, func(k kill) bool { return s.Start.Before(k.Until) && s.Start.Add(s.Took).After(k.At) })
			if !met && s.Start.After(from) {
				longest = max(longest, s.Took)
			}
		}
	}
	return longest
}

func rowsOf(kills []kill, kinds []kind, cold map[string]time.Duration) []row {
	var rows []row
	for _, k := range kinds {
		for _, client := range clientKinds {
			w := row{Kind: k.name, Client: client}
			var pauses, stalls []time.Duration
			var ratios []float64
			for _, each := range kills {
				if each.Kind == k.name && each.Client == client {
					pauses, stalls = append(pauses, each.Pause), append(stalls, each.Stall)
					ratios = append(ratios, each.ratio())
				}
			}
			if w.Kills = len(pauses); w.Kills == 0 {
				continue
			}
			w.Pause, w.Stall = figuresOf(pauses), figuresOf(stalls)
			if cold[client] > 0 {
				w.Ratio = float64(w.Pause.P50) / float64(cold[client])
			}
			slices.Sort(ratios)
			w.OwnRatio = ratios[len(ratios)/2]
			rows = append(rows, w)
		}
	}
	return rows
}

// ratio is the pause to the start of the client that ended it; 0 if no client was started.
func (k kill) ratio() float64 {
	if k.Start == 0 {
		return 0
	}
	return float64(k.Pause) / float64(k.Start)
}

// table is the result for people.
func (r *result) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nseed %d, kernel %s, %.0f s\n\n", r.Seed, r.Kernel, r.Seconds)
	fmt.Fprintf(&b, "                           requests waited, ms     longest operation, ms   pause to start of\n")
	fmt.Fprintf(&b, "kill    client      kills    p50    p99    max      p50    p99    max    first   this one\n")
	for _, w := range r.Rows {
		pause, ratios := w.Pause.String(), fmt.Sprintf("%6.2f %10.2f", w.Ratio, w.OwnRatio)
		if w.Pause.Max == 0 {
			pause, ratios = "     -      -      -", "     -          -"
		}
		fmt.Fprintf(&b, "%-7s %-11s %5d %s   %s   %s\n", w.Kind, w.Client, w.Kills, pause, w.Stall, ratios)
	}
	fmt.Fprintln(&b)
	for _, client := range clientKinds {
		if r.ColdStart[client] == 0 {
			continue
		}
		fmt.Fprintf(&b, "%-11s cold start of the client %d ms; longest operation away from any kill %d ms\n", client,
			r.ColdStart[client].Milliseconds(), r.Undisturbed[client].Milliseconds())
	}
	fmt.Fprintln(&b)
	for _, name := range sortedKeys(r.Workloads) {
		w := r.Workloads[name]
		fmt.Fprintf(&b, "%-32s %8d operations  %d errors  %d bytes lost\n", name, w.Total(), w.Failures, w.Lost)
		for _, text := range append(w.Notes, w.Errors...) {
			fmt.Fprintf(&b, "    %s\n", text)
		}
	}
	if text := aims(r.Rows); text != "" {
		fmt.Fprintf(&b, "\n%s", text)
	}
	fmt.Fprintf(&b, "\n%d kills, %d operations, %d errors, %d bytes lost\n", len(r.Kills), r.Operations, r.Errors, r.Lost)
	return b.String()
}

// section is the result for a document.
func (r *result) section() string {
	kinds := ""
	if r.Only != "" {
		kinds = " KINDS=" + r.Only
	}
	return fmt.Sprintf("`make recovery N=%d SEED=%d%s`, %s:\n\n```\n%s\n```", r.Wanted, r.Seed, kinds, r.Date.Format("2006-01-02"), strings.TrimSpace(r.table()))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// write leaves the result as JSON.
func (r *result) write(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// verdict is nil if everything was done and nobody noticed.
func (r *result) verdict() error {
	var all []error
	if r.Errors != 0 || r.Lost != 0 {
		all = append(all, fmt.Errorf("applications met %d errors and lost %d bytes", r.Errors, r.Lost))
	}
	if len(r.Kills) == 0 || len(r.Kills) < r.Wanted {
		all = append(all, fmt.Errorf("%d of %d kills were done", len(r.Kills), r.Wanted))
	}
	if len(r.Workloads) == 0 {
		all = append(all, errors.New("there was no workload"))
	}
	for _, name := range sortedKeys(r.Workloads) {
		if r.Workloads[name].Total() == 0 {
			all = append(all, fmt.Errorf("workload %s did nothing", name))
		}
	}
	return errors.Join(all...)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
