// Command workload is the application of the recovery test: it uses a volume while the client below it is killed, and knows what every
// answer must be. It runs in a pod and tells what it met in a directory that it shares with the harness.
//
//	workload KIND --name NAME --dir DIR --results DIR --scratch DIR --seed N --pace D
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// kinds are the workloads. Each runs until ctx ends, brings what it does to an end, and records what went wrong.
var kinds = map[string]func(ctx context.Context, s *scene){
	"verify": verify,
	"fio":    fio,
	"sqlite": sqlite,
	"git":    git,
	"append": appendJournal,
	"follow": followJournal,
	"audit":  audit,
}

// scene is what a workload has to work with.
type scene struct {
	*recorder
	// dir is a directory of its own on the volume, volume the volume's root.
	dir, volume string
	// results is shared with the harness, scratch is a directory that is not on the volume.
	results, scratch string
	seed             uint64
	// pace is the pause between two rounds of a worker; it keeps a small machine responsive.
	pace time.Duration
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == contenderKind {
		os.Exit(contend(os.Args[2]))
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || kinds[args[0]] == nil {
		return fmt.Errorf("name a kind of workload first")
	}
	kind := args[0]
	f := flag.NewFlagSet(kind, flag.ContinueOnError)
	s := &scene{}
	name := f.String("name", kind, "`name` of its report")
	f.StringVar(&s.volume, "dir", "", "`directory` of the volume")
	f.StringVar(&s.results, "results", "", "`directory` that is shared with the harness")
	f.StringVar(&s.scratch, "scratch", "/tmp", "`directory` that is not on the volume")
	f.Uint64Var(&s.seed, "seed", 1, "`number` that decides what is written")
	f.DurationVar(&s.pace, "pace", 2*time.Millisecond, "pause between two rounds of a worker")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if s.volume == "" || s.results == "" {
		return fmt.Errorf("--dir and --results are required")
	}
	s.recorder = newRecorder(*name)
	s.dir = filepath.Join(s.volume, own(kind))
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := make(chan error, 1)
	go func() { told <- s.followHarness(ctx, cancel) }()
	kinds[kind](ctx, s)
	cancel()
	if err := <-told; err != nil {
		return err
	}
	return report.Write(s.results, s.end())
}

// own is the directory of a kind of workload on the volume. Who appends and who follows share one.
func own(kind string) string {
	switch kind {
	case "append", "follow":
		return "journal"
	case "audit":
		return "."
	}
	return kind
}

// followHarness gives signs of life and cancels the work when the harness wants it to end.
func (s *scene) followHarness(ctx context.Context, cancel context.CancelFunc) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := report.WriteProgress(s.results, s.name(), s.progress()); err != nil {
			cancel()
			return err
		}
		if _, err := os.Stat(filepath.Join(s.results, report.StopFile)); err == nil {
			cancel()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
