// Command recovery proves on a real cluster that whatever serves a volume may die at any moment. It runs applications that know what every
// answer must be, kills clients, agents and the node's process below them at random, and fails if an application saw an error or a
// byte is lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sidemount/sidemount/test/bench"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == ballastCommand {
		os.Exit(ballast(os.Args[2], os.Args[3]))
	}
	o := options{}
	flag.IntVar(&o.kills, "n", 100, "`number` of kills")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "`number` that decides which, when and what; a run prints its own")
	flag.StringVar(&o.out, "out", ".cache/recovery.json", "`file` for the result")
	flag.StringVar(&o.traces, "traces", ".cache/recovery", "`directory` for what explains a failure")
	flag.StringVar(&o.doc, "doc", "", "Markdown `file` to write the table into (default: none)")
	flag.Func("kinds", "kinds of kills, separated by commas (default: all)", o.setKinds)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 45*time.Minute)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "recovery:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	kills       int
	seed        uint64
	out, traces string
	doc         string
	// kinds are for sidecars, mountPodKinds for Mount Pods; a place without any has no subjects.
	kinds, mountPodKinds []kind
	// only is what the command line says of them.
	only string
}

func run(ctx context.Context, o options) (err error) {
	if o.kinds == nil && o.mountPodKinds == nil {
		o.kinds, o.mountPodKinds = allKinds, mountPodKinds
	}
	fmt.Fprintf(os.Stderr, "recovery: %d kills with -seed %d\n", o.kills, o.seed)
	t, err := newTrial(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
		defer cancel()
		err = errors.Join(err, t.end(ending, err != nil))
	}()
	if err := t.prepare(ctx); err != nil {
		return err
	}
	// A failed run tells as much as can be told.
	err = t.disturb(ctx)
	err = errors.Join(err, t.finish(ctx))
	r := t.result()
	fmt.Print(r.table())
	err = errors.Join(err, r.write(o.out), r.verdict())
	if err == nil && o.doc != "" {
		err = bench.Write(o.doc, o.section(), r.section())
	}
	return err
}

// section is the name of the part of a document that a run writes. One of Mount Pods alone has its own.
func (o *options) section() string {
	if len(o.kinds) == 0 {
		return "recovery-mount-pods"
	}
	return "recovery"
}
