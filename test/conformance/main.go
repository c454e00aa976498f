package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/sidemount/sidemount/test/lab"
)

// options are what the command line says.
type options struct {
	suite, node string
	focus       string
	procs       int
	out, doc    string
	reread      bool
}

func main() {
	o := options{}
	flag.StringVar(&o.suite, "suite", "storage", "`name` of the tests: node or storage")
	flag.StringVar(&o.node, "node", lab.VirtualNode, "`node` under test")
	flag.StringVar(&o.focus, "focus", "", "run only tests that match this `regexp` besides")
	flag.IntVar(&o.procs, "procs", 4, "`number` of tests at a time")
	flag.StringVar(&o.out, "out", ".cache/conformance", "`directory` for reports and logs")
	flag.StringVar(&o.doc, "doc", "", "Markdown `file` to write the result into (default: none)")
	flag.BoolVar(&o.reread, "reread", false, "run nothing, and tell what the last run's report says")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Hour)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	s, ok := suites[o.suite]
	if !ok {
		return fmt.Errorf("-suite %s: there are %v", o.suite, slices.Sorted(maps.Keys(suites)))
	}
	if o.reread {
		r, err := readReport(filepath.Join(o.out, o.suite+"-"+o.node, "report.json"), s)
		if err != nil {
			return err
		}
		return r.publish(o)
	}
	p, err := build(ctx)
	if err != nil {
		return err
	}
	l, err := lab.Start(ctx, "conformance-"+o.suite, os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
		defer cancel()
		err = errors.Join(err, l.Stop(ending))
	}()
	if err := pushImages(ctx, l, p); err != nil {
		return err
	}
	arguments, err := s.prepare(ctx, l, o)
	if err != nil {
		return err
	}
	if err := only(ctx, l, o.node); err != nil {
		return err
	}
	report, err := s.run(ctx, l, p, o, arguments)
	if err != nil {
		return err
	}
	return report.publish(o)
}
