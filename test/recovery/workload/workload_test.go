package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// The contender is this binary once more.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == contenderKind {
		os.Exit(contend(os.Args[2]))
	}
	os.Exit(m.Run())
}

// newScene works on a local directory, where every workload must find nothing wrong.
func newScene(t *testing.T, kind string) *scene {
	t.Helper()
	s := &scene{recorder: newRecorder(kind), volume: t.TempDir(), results: t.TempDir(), scratch: t.TempDir(), seed: 5, pace: time.Millisecond}
	s.dir = filepath.Join(s.volume, own(kind))
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWorkloadsAcceptALocalFileSystem(t *testing.T) {
	for kind, needs := range map[string]string{"verify": "", "fio": "fio", "sqlite": "sqlite3", "git": "git"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(cmp.Or(needs, "true")); err != nil {
				t.Skipf("skipped: %s is not installed", needs)
			}
			s := newScene(t, kind)
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			defer cancel()
			kinds[kind](ctx, s)
			expectClean(t, s)
			if err := report.WriteAudit(s.results, s.end().Files); err != nil {
				t.Fatal(err)
			}
			audit(t.Context(), s)
			expectClean(t, s)
		})
	}
}

func expectClean(t *testing.T, s *scene) {
	t.Helper()
	r := s.end()
	if r.Failures != 0 || r.Lost != 0 {
		t.Errorf("%d failures, %d bytes lost: %v", r.Failures, r.Lost, r.Errors)
	}
	if r.Total() == 0 {
		t.Error("the workload did nothing")
	}
}

func TestFollowerReadsWhatTheAppenderWrites(t *testing.T) {
	a := newScene(t, "append")
	f := &scene{recorder: newRecorder("follow"), volume: a.volume, dir: a.dir, pace: a.pace}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { followJournal(ctx, f) })
	appendJournal(ctx, a)
	running.Wait()
	expectClean(t, a)
	expectClean(t, f)
}

// Each row damages a worker's files behind its back; a worker that does not notice proves nothing.
func TestWorkersNoticeDamage(t *testing.T) {
	flip := func(t *testing.T, path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		worker string
		create func(base) worker
		damage func(t *testing.T, dir string)
		lost   bool
	}{
		{"blocks", func(b base) worker { return &blocks{base: b, mode: 0o644, later: 0o644} }, func(t *testing.T, dir string) { flip(t, dir+"/data") }, true},
		{"appends", func(b base) worker { return &appends{base: b} }, func(t *testing.T, dir string) { flip(t, dir+"/long") }, true},
		{"mapping", func(b base) worker { return &mapping{base: b} }, func(t *testing.T, dir string) { flip(t, dir+"/mapped") }, true},
		{"names", func(b base) worker { return &names{base: b} }, func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(dir+"/stranger", nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"removed", func(b base) worker { return &removed{base: b} }, func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(dir+"/stranger", nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"listing", func(b base) worker { return &listing{base: b} }, func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Remove(dir + "/name-with-some-length-0007"); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.worker, func(t *testing.T) {
			s := newScene(t, "verify")
			dir := filepath.Join(s.dir, c.worker)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			w := c.create(base{scene: s, dir: dir, rand: rand.New(rand.NewPCG(1, 2))})
			if err := w.start(); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if err := w.round(); err != nil {
					t.Fatal(err)
				}
			}
			c.damage(t, dir)
			var err error
			if _, endless := w.(*listing); endless { // it compares when a listing is complete
				for i := 0; i < 100 && err == nil; i++ {
					err = w.round()
				}
			} else {
				err = w.finish()
			}
			var d *damage
			if err == nil || errors.As(err, &d) != c.lost {
				t.Errorf("the worker says %v", err)
			}
		})
	}
}

func TestContenderNoticesAFreeLock(t *testing.T) {
	s := newScene(t, "verify")
	w := &locks{base: base{scene: s, dir: s.dir, rand: rand.New(rand.NewPCG(1, 2))}}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	for kind, call := range lockCalls {
		if err := w.take(kind); err != nil {
			t.Fatal(err)
		}
		if err := w.expect("busy"); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		const unlock = 2 // F_UNLCK, behind the worker's back
		if err := call(w.file.fd, unlock); err != nil {
			t.Fatal(err)
		}
		if err := w.expect("busy"); err == nil {
			t.Errorf("%s: a lost lock was not noticed", kind)
		}
		w.held = ""
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
}

func TestJournalLines(t *testing.T) {
	good := func(n int, text string) []byte { return []byte(strings.TrimSuffix(string(journalLine(n, text)), "\n")) }
	for _, c := range []struct {
		line   []byte
		number int
		last   bool
		bad    bool
	}{
		{good(3, "xx"), 3, false, false},
		{good(3, ""), 3, false, false},
		{good(3, lastLine), 3, true, false},
		{good(4, "xx"), 3, false, true},
		{append(good(3, "xx")[1:], 'x'), 3, false, true},
		{nil, 0, false, true},
	} {
		last, err := checkLine(c.line, c.number)
		if last != c.last || (err != nil) != c.bad {
			t.Errorf("checkLine(%q, %d) = %t, %v", c.line, c.number, last, err)
		}
	}
}

func TestAuditNoticesWhatIsMissing(t *testing.T) {
	s := newScene(t, "audit")
	if err := os.WriteFile(filepath.Join(s.volume, "a"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.keep(filepath.Join(s.volume, "a")); err != nil {
		t.Fatal(err)
	}
	a := s.end().Files[0]
	wrong, missing := a, report.File{Path: "b", Size: 9}
	wrong.Sum = strings.Repeat("0", len(a.Sum))
	if err := report.WriteAudit(s.results, []report.File{a, wrong, missing}); err != nil {
		t.Fatal(err)
	}
	audit(t.Context(), s)
	r := s.end()
	if r.Failures != 2 || r.Lost != 4+9 {
		t.Errorf("%d failures, %d bytes lost, want 2 and 13: %v", r.Failures, r.Lost, r.Errors)
	}
}

func TestExpectedUpdatesOfSQLite(t *testing.T) {
	// Eight transactions: rows 1 to 8; row 7 was updated by the transactions 7 and 8.
	if got, want := expect(8), fmt.Sprintf("%d|%d|%d|0", 8, 8, 2); got != want {
		t.Errorf("expect(8) = %s, want %s", got, want)
	}
}
