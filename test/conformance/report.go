package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/sidemount/sidemount/test/bench"
)

// report is how a run ended.
type report struct {
	suite    suite
	passed   []string
	failed   []failure
	skipped  map[string]int // reasons that tests gave themselves
	duration time.Duration
}

// failure is a test that did not pass.
type failure struct{ name, message string }

func readReport(file string, s suite) (report, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return report{}, fmt.Errorf("the tests left no report: %w", err)
	}
	var all []types.Report
	if err := json.Unmarshal(raw, &all); err != nil {
		return report{}, fmt.Errorf("read the tests' report: %w", err)
	}
	r := report{suite: s, skipped: map[string]int{}}
	for _, one := range all {
		r.duration += one.RunTime
		for _, spec := range one.SpecReports {
			r.add(spec)
		}
	}
	slices.Sort(r.passed)
	return r, nil
}

func (r *report) add(spec types.SpecReport) {
	name := strings.TrimSpace(strings.Join(append(slices.Clone(spec.ContainerHierarchyTexts), spec.LeafNodeText), " "))
	switch {
	case spec.LeafNodeType != types.NodeTypeIt && !spec.Failed():
	case spec.Failed():
		message, _, _ := strings.Cut(strings.TrimSpace(spec.FailureMessage()), "\n")
		r.failed = append(r.failed, failure{name, message})
	case spec.State.Is(types.SpecStatePassed):
		r.passed = append(r.passed, name)
	case spec.Failure.Message != "":
		// A test that its own condition has skipped says why; one that the command line has not selected does not.
		r.skipped[strings.TrimSuffix(spec.Failure.Message, " -- skipping")]++
	}
}

// publish prints the report, writes it down where it is wanted, and judges it.
func (r report) publish(o options) error {
	fmt.Print(r.summary())
	if o.doc != "" {
		if err := bench.Write(o.doc, "conformance-"+o.suite+"-"+o.node, r.section(o)); err != nil {
			return err
		}
	}
	return r.verdict()
}

func (r report) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d passed, %d failed in %s\n", r.suite.title, len(r.passed), len(r.failed), r.duration.Round(time.Second))
	for _, f := range r.failed {
		fmt.Fprintf(&b, "FAILED %s\n       %s\n", f.name, f.message)
	}
	return b.String()
}

// section is the report for a document.
func (r report) section(o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s on %s\n\nWritten by `%s`, Kubernetes v1.36.3: **%d passed, %d failed** in %s.\n\n", r.suite.title, kind(o.node), command(o),
		len(r.passed), len(r.failed), r.duration.Round(time.Second))
	if len(r.failed) > 0 {
		b.WriteString("| failed | how |\n|---|---|\n")
		for _, f := range r.failed {
			fmt.Fprintf(&b, "| %s | %s |\n", cell(f.name), cell(f.message))
		}
		b.WriteString("\n")
	}
	b.WriteString("| not run | reason |\n|---|---|\n")
	for _, s := range r.suite.skips {
		fmt.Fprintf(&b, "| all with `%s` in their names | %s |\n", s.name, s.reason)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.skipped)) {
		fmt.Fprintf(&b, "| %d | the tests say: %s |\n", r.skipped[reason], cell(reason))
	}
	return b.String()
}

func kind(node string) string {
	if strings.HasPrefix(node, "vn-") {
		return "the virtual node"
	}
	return "an ordinary node"
}

func command(o options) string {
	if o.suite == "storage" {
		return "make e2e-storage"
	}
	return "make conformance"
}

func cell(s string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s) }

// verdict is an error if a test failed or none was run.
func (r report) verdict() error {
	if len(r.failed) > 0 {
		return fmt.Errorf("%d of %d tests failed", len(r.failed), len(r.failed)+len(r.passed))
	}
	if len(r.passed) == 0 {
		return errors.New("no test was run")
	}
	return nil
}
