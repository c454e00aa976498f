package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/cluster"
	"golang.org/x/sys/unix"
)

// virtualProcess holds the flags that say what a virtual node runs.
type virtualProcess struct {
	program, agent string
	args           list
}

func processFlags(f *flag.FlagSet) *virtualProcess {
	p := &virtualProcess{}
	f.StringVar(&p.program, "sidemount", "", "`program` to start on virtual nodes (default: none, only containerd)")
	f.StringVar(&p.agent, "sidemount-agent", "", "agent `program` to hand to it")
	f.Var(&p.args, "virtual-node-arg", "`argument` to append to its command line; may be repeated")
	return p
}

func (p *virtualProcess) value() cluster.VirtualProcess {
	return cluster.VirtualProcess{Program: p.program, Agent: p.agent, Args: p.args}
}

func runVirtualNode(ctx context.Context, args []string) error {
	const usage = "start|stop|restart --node NODE [flags]"
	f := newFlags("virtual-node", usage)
	name, p := nameFlag(f), processFlags(f)
	node := f.String("node", "vn-1", "`name` of the virtual node")
	signal := f.String("signal", "TERM", "`signal` to stop it with")
	timeout := f.Duration("timeout", 60*time.Second, "how long it may take to end")
	if len(args) == 0 {
		f.Usage()
		return exitCode(2)
	}
	verb := args[0]
	if err := parse(f, args[1:]); err != nil {
		return err
	}
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(*signal), "SIG"))
	if sig == 0 {
		return fmt.Errorf("there is no signal %q", *signal)
	}
	c, err := cluster.Open(ctx, *name, os.Stderr)
	if err != nil {
		return err
	}
	defer c.Close()
	switch verb {
	case "start":
		return c.StartVirtual(ctx, *node, p.value())
	case "stop":
		return c.StopVirtual(ctx, *node, sig, *timeout)
	case "restart":
		if err := c.StopVirtual(ctx, *node, sig, *timeout); err != nil {
			return err
		}
		return c.StartVirtual(ctx, *node, p.value())
	}
	return fmt.Errorf("virtual-node %q: it is %s", verb, usage)
}

func runExec(ctx context.Context, args []string) error {
	f := newFlags("exec", "[--name NAME] [--node NODE] -- COMMAND [ARGUMENT…]")
	name := nameFlag(f)
	node := f.String("node", "", "`name` of the node (default: the machine, which is not a node)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return fmt.Errorf("exec needs a command")
	}
	s, err := cluster.Load(*name)
	if err != nil {
		return err
	}
	code, err := cluster.Exec(ctx, s, *node, f.Args())
	if err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}
