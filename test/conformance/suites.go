package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/sidemount/sidemount/test/lab"
)

// suite is a set of Kubernetes' tests.
type suite struct {
	title string
	// focus selects the tests by name.
	focus string
	// skips are the tests that cannot pass here.
	skips []skip
	// prepare makes the cluster ready and returns further arguments of the tests.
	prepare func(ctx context.Context, l *lab.Lab, o options) ([]string, error)
}

var suites = map[string]suite{
	"node": {
		title:   "Kubernetes' NodeConformance tests",
		focus:   `\[NodeConformance\].*\[Conformance\]`,
		skips:   nodeSkips,
		prepare: func(context.Context, *lab.Lab, options) ([]string, error) { return nil, nil },
	},
	"storage": {
		title:   "Kubernetes' External.Storage tests",
		focus:   `External.Storage`,
		skips:   storageSkips,
		prepare: installDriver,
	},
}

// only makes the node under test the only one on which tests' pods can be scheduled.
func only(ctx context.Context, l *lab.Lab, node string) error {
	for _, n := range []string{lab.OrdinaryNode, lab.VirtualNode} {
		verb := "cordon"
		if n == node {
			verb = "uncordon"
		}
		if _, err := l.Kubectl(ctx, verb, n); err != nil {
			return err
		}
	}
	if node != lab.VirtualNode {
		return nil
	}
	// Tests' pods tolerate nothing.
	_, err := l.Kubectl(ctx, "taint", "node", node, "virtual-kubelet.io/provider-")
	return err
}

// run runs the tests. That some fail is in the report and no error.
func (s suite) run(ctx context.Context, l *lab.Lab, p programs, o options, arguments []string) (report, error) {
	dir, err := filepath.Abs(filepath.Join(o.out, o.suite+"-"+o.node))
	if err != nil {
		return report{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return report{}, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return report{}, err
	}
	defer log.Close()
	args := []string{"--procs", strconv.Itoa(o.procs), "--timeout", "2h", "--no-color", "--silence-skips", "--json-report", "report.json", "--output-dir", dir,
		"--focus", s.focus, "--skip", s.pattern()}
	if o.focus != "" {
		args[len(args)-3] = o.focus
	}
	args = append(args, p.tests, "--", "--kubeconfig", l.Kubeconfig, "--provider", "local", "--num-nodes", "1", "--kubectl-path", l.Binary("kubectl"),
		"--allowed-not-ready-nodes", "1", "--dump-logs-on-failure=false")
	cmd := exec.CommandContext(ctx, p.ginkgo, append(args, arguments...)...)
	cmd.Dir = filepath.Join("test", "conformance", "suite") // its go.mod tells the version of ginkgo
	cmd.Stdout, cmd.Stderr = newProgress(log, os.Stderr), log
	fmt.Fprintf(os.Stderr, "conformance: %s on %s, %d at a time; everything is in %s\n", s.title, o.node, o.procs, log.Name())
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return report{}, err
	}
	return readReport(filepath.Join(dir, "report.json"), s)
}

// pattern matches the names of all tests that are skipped.
func (s suite) pattern() string {
	var all []string
	for _, k := range s.skips {
		if k.regexp {
			all = append(all, k.name)
		} else {
			all = append(all, regexp.QuoteMeta(k.name))
		}
	}
	return strings.Join(all, "|")
}
