// Command io measures reads, writes and names in four pods side by side: with a JuiceFS volume, with stock JuiceFS in the pod itself,
// with a passthrough volume, and with a plain directory. All data lies in memory, so that no disk is measured. It writes a section
// of docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/sidemount/sidemount/test/bench"
	"github.com/sidemount/sidemount/test/lab"
)

func main() {
	rounds := flag.Int("n", 5, "rounds; each measures all four places in turn")
	stock := flag.String("stock", ".cache/bin/juicefs-stock", "`program` of stock JuiceFS")
	out := flag.String("out", "docs/benchmarks.md", "file to write the section into")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	if err := run(ctx, *rounds, *stock, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench-io:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, stock, out string) (err error) {
	if os.Getenv("SIDEMOUNT_LAB") != "" {
		return errors.New("a cluster that runs already cannot see the file system in memory; unset SIDEMOUNT_LAB")
	}
	// The cluster's machine takes over the mounts that there are when it starts.
	memory, err := newMemory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, memory.remove()) }()
	l, err := lab.Start(ctx, "bench-io", os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		err = errors.Join(err, l.Stop(ending))
	}()
	b := &benchmark{lab: l, memory: memory, stock: stock}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	figures, err := b.measure(ctx, rounds)
	if err != nil {
		return err
	}
	report := figures.report(rounds)
	fmt.Println(report)
	return bench.Write(out, "bench-io", report)
}

// measure takes each step in all places before the next one, so that a noisy minute hits all of them, and turns the order round each time.
func (b *benchmark) measure(ctx context.Context, rounds int) (*results, error) {
	steps, err := b.steps(ctx)
	if err != nil {
		return nil, err
	}
	all := newResults()
	for round := range rounds {
		order := slices.Clone(places)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, step := range steps {
			for _, place := range order {
				figures, err := b.take(ctx, place, step)
				if err != nil {
					return nil, fmt.Errorf("measure %s: %w", place, err)
				}
				all.add(place, figures)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
	}
	return all, nil
}
