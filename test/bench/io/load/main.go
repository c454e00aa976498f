// Command load measures a directory: throughput and small reads and writes by fio, and names by itself. It prints figures as JSON.
//
//	load measure DIR
//	load idle           wait for the end, so that a pod stays to be measured in
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case len(os.Args) == 2 && os.Args[1] == "idle":
		<-ctx.Done()
	case len(os.Args) == 3 && os.Args[1] == "measure":
		if err := measure(ctx, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: load measure DIR | idle")
		os.Exit(64)
	}
}

func measure(ctx context.Context, dir string) error {
	throughput, err := throughput(ctx, dir)
	if err != nil {
		return err
	}
	names, err := names(dir)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(append(throughput, names...))
}
