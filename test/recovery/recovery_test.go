package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemount/sidemount/test/recovery/report"
)

func TestPlanDrawsKindsInTurnAndDealsThemOut(t *testing.T) {
	const n, lanes = 48, 4
	all := plan(n, lanes, allKinds, 7)
	count := map[string]int{}
	for i, lane := range all {
		if len(lane) != n/lanes {
			t.Errorf("lane %d has %d strikes", i, len(lane))
		}
		own := map[string]int{}
		for _, s := range lane {
			count[s.kind.name]++
			own[s.kind.name]++
			if s.wait < 0 || s.wait >= longestWait {
				t.Errorf("a pause of %s", s.wait)
			}
		}
		for _, k := range allKinds {
			if own[k.name] != n/lanes/len(allKinds) {
				t.Errorf("lane %d has %d of kind %s", i, own[k.name], k.name)
			}
		}
	}
	for _, k := range allKinds {
		if count[k.name] != n/len(allKinds) {
			t.Errorf("%d of kind %s", count[k.name], k.name)
		}
	}
	names := func(all [][]strike) (out []string) {
		for _, lane := range all {
			for _, s := range lane {
				out = append(out, s.kind.name+s.wait.String())
			}
		}
		return out
	}
	if !slices.Equal(names(all), names(plan(n, lanes, allKinds, 7))) {
		t.Error("the same seed gives another plan")
	}
	if slices.Equal(names(all), names(plan(n, lanes, allKinds, 8))) {
		t.Error("another seed gives the same plan")
	}
}

func TestParseLine(t *testing.T) {
	r := parseLine(`2026-11-22T13:46:52.370Z stderr F time="2026-11-22T13:46:52.370Z" level=info msg="client serves" cause="signal: killed" pause=12.5ms empty= last=x`)
	for key, want := range map[string]string{
		"time": "2026-11-22T13:46:52.370Z", "level": "info", "msg": "client serves", "cause": "signal: killed", "pause": "12.5ms", "empty": "", "last": "x",
	} {
		if got := r[key]; got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	if got := r.pause(); got != 12500*time.Microsecond {
		t.Errorf("pause = %s", got)
	}
	if got := parseLine("no keys here").pause(); got != 0 {
		t.Errorf("pause of nothing = %s", got)
	}
}

func TestNodeLogFollowsWhatIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := newNodeLog(path)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go l.run(ctx)
	write := func(text string) {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	is := func(n string) func(record) bool { return func(r record) bool { return r["n"] == n } }
	write("n=1\nn=")
	if _, err := l.await(ctx, 0, is("1")); err != nil {
		t.Fatal(err)
	}
	mark := l.mark()
	write("2\n")
	if r, err := l.await(ctx, mark, is("2")); err != nil || r["n"] != "2" {
		t.Fatalf("%v, %v", r, err)
	}
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := l.await(short, mark, is("1")); err == nil {
		t.Error("a record before the mark was found")
	}
}

func TestStallsBelongToTheKillThatTheyMeet(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	w := []*report.Report{{Stalls: []report.Stall{
		{Start: at(0), Took: time.Second},
		{Start: at(9), Took: 3 * time.Second},
		{Start: at(11), Took: 2 * time.Second},
		{Start: at(20), Took: 5 * time.Second},
	}}}
	k := kill{At: at(10), Until: at(14)}
	if got := stallOf(w, at(5), k.At, k.Until); got != 3*time.Second {
		t.Errorf("stall of the kill = %s", got)
	}
	if got := stallOf(w, at(10), k.At, k.Until); got != 2*time.Second {
		t.Errorf("stall of the kill without that of the one before = %s", got)
	}
	if got := undisturbed(w, at(-1), []kill{k}); got != 5*time.Second {
		t.Errorf("undisturbed = %s", got)
	}
}

func TestRowsSumKillsUp(t *testing.T) {
	ms := time.Millisecond
	kills := []kill{
		{Kind: "client", Client: "juicefs", Pause: 100 * ms, Start: 80 * ms, Stall: 110 * ms},
		{Kind: "client", Client: "juicefs", Pause: 300 * ms, Start: 100 * ms, Stall: 330 * ms},
		{Kind: "client", Client: "juicefs", Pause: 200 * ms, Start: 100 * ms, Stall: 220 * ms},
		{Kind: "node", Client: "passthrough", Stall: 5 * ms},
	}
	rows := rowsOf(kills, allKinds, map[string]time.Duration{"juicefs": 400 * ms})
	if len(rows) != 2 {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	want := row{
		Kind: "client", Client: "juicefs", Kills: 3, Ratio: 0.5, OwnRatio: 2,
		Pause: figures{200 * ms, 300 * ms, 300 * ms}, Stall: figures{220 * ms, 330 * ms, 330 * ms},
	}
	if rows[0] != want {
		t.Errorf("got %+v, want %+v", rows[0], want)
	}
	r := result{Rows: rows}
	if got := r.table(); !strings.Contains(got, "client  juicefs         3    200    300    300      220    330    330     0.50       2.00\n") {
		t.Errorf("the table is wrong:\n%s", got)
	}
}

func TestVerdict(t *testing.T) {
	good := func() *result {
		return &result{Wanted: 1, Kills: []kill{{}}, Workloads: map[string]*report.Report{"w": {Ops: map[string]report.Class{"op": {Count: 1}}}}}
	}
	if err := good().verdict(); err != nil {
		t.Errorf("a good result: %v", err)
	}
	for want, spoil := range map[string]func(*result){
		"met 1 errors":           func(r *result) { r.Errors = 1 },
		"lost 9 bytes":           func(r *result) { r.Lost = 9 },
		"0 of 1 kills":           func(r *result) { r.Kills = nil },
		"1 of 2 kills":           func(r *result) { r.Wanted = 2 },
		"there was no":           func(r *result) { r.Workloads = nil },
		"workload w did nothing": func(r *result) { r.Workloads["w"].Ops = nil },
	} {
		r := good()
		spoil(r)
		if err := r.verdict(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
