package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sidemount/sidemount/test/recovery/report"
)

const (
	// maxErrors and maxStalls bound a report; the first ones are the ones that explain something.
	maxErrors = 40
	maxStalls = 20000
)

// recorder counts and times operations. It may be used by several goroutines.
type recorder struct {
	mu sync.Mutex // guards r
	r  report.Report
}

func newRecorder(name string) *recorder {
	return &recorder{r: report.Report{Workload: name, Began: time.Now(), Ops: map[string]report.Class{}}}
}

func (r *recorder) name() string { return r.r.Workload }

// do runs an operation and records it. The caller decides what an error means.
func (r *recorder) do(class string, op func() error) error {
	start := time.Now()
	err := op()
	r.took(class, start, time.Since(start))
	return err
}

func (r *recorder) took(class string, start time.Time, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.r.Ops[class]
	c.Count++
	c.Longest = max(c.Longest, took)
	r.r.Ops[class] = c
	switch {
	case took < report.StallFrom:
	case len(r.r.Stalls) < maxStalls:
		r.r.Stalls = append(r.r.Stalls, report.Stall{Class: class, Start: start, Took: took})
	default:
		r.r.StallsLeftOut++
	}
}

// damage is content that is not what was written.
type damage struct {
	what  string
	bytes int64
}

func (d *damage) Error() string {
	return fmt.Sprintf("%s: %d bytes are not as written", d.what, d.bytes)
}

// fail records what must not happen. Damaged content counts as lost bytes as well.
func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r.Failures++
	var d *damage
	if errors.As(err, &d) {
		r.r.Lost += d.bytes
	}
	if len(r.r.Errors) < maxErrors {
		r.r.Errors = append(r.r.Errors, time.Now().UTC().Format("15:04:05.000 ")+err.Error())
	}
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r.Notes = append(r.r.Notes, fmt.Sprintf(format, args...))
}

// leaves adds files that must be found later.
func (r *recorder) leaves(files ...report.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r.Files = append(r.r.Files, files...)
}

func (r *recorder) progress() report.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := report.Progress{Ops: r.r.Total(), Failures: r.r.Failures, Lost: r.r.Lost}
	if len(r.r.Errors) > 0 {
		p.Error = r.r.Errors[0]
	}
	return p
}

func (r *recorder) end() *report.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.r
	out.Ended = time.Now()
	out.Stalls = slices.Clone(r.r.Stalls)
	return &out
}

// repeat runs round until ctx ends or a round fails.
func (s *scene) repeat(ctx context.Context, round func() error) error {
	tick := time.NewTicker(s.pace)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		if err := round(); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// add records operations that a program has counted itself.
func (r *recorder) add(class string, more report.Class) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.r.Ops[class]
	c.Count += more.Count
	c.Longest = max(c.Longest, more.Longest)
	r.r.Ops[class] = c
}
