// Command load measures a directory: throughput and small reads and writes by fio, and names by itself. It prints figures as JSON.
//
//	load steps              print the names of the steps
//	load measure DIR STEP   take a step; what it leaves is for those after it
//	load mounts             print the mounts of this container
//	load idle               wait for the end, so that a pod stays to be measured in
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// figure is what was measured; larger is better.
type figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// step is what is measured at a time, so that other places can be measured right before and after.
type step struct {
	name string
	run  func(ctx context.Context, dir string) ([]figure, error)
}

func steps() []step {
	var all []step
	for _, j := range jobs {
		all = append(all, step{j.name, j.measure})
	}
	return append(all, step{"names", func(_ context.Context, dir string) ([]figure, error) { return names(dir) }})
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case len(os.Args) == 2 && os.Args[1] == "idle":
		<-ctx.Done()
	case len(os.Args) == 2 && os.Args[1] == "mounts":
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		fmt.Print(string(mounts))
	case len(os.Args) == 2 && os.Args[1] == "steps":
		for _, s := range steps() {
			fmt.Println(s.name)
		}
	case len(os.Args) == 4 && os.Args[1] == "measure":
		if err := measure(ctx, os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: load steps | measure DIR STEP | mounts | idle")
		os.Exit(64)
	}
}

func measure(ctx context.Context, dir, name string) error {
	for _, s := range steps() {
		if s.name != name {
			continue
		}
		figures, err := s.run(ctx, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return json.NewEncoder(os.Stdout).Encode(figures)
	}
	return fmt.Errorf("there is no step %q", name)
}
