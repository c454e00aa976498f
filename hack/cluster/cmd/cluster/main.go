// Command cluster runs a real Kubernetes on this machine, as many of them as there is memory for, and leaves the machine
// as it was. `cluster help` lists the commands; README.md of hack/cluster describes them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sidemount/sidemount/hack/cluster/internal/cluster"
	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
)

// command is a subcommand; run gets its arguments.
type command struct {
	name  string
	usage string
	run   func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"build", "build all programs and base images that are missing or out of date", runBuild},
		{"up", "bring a cluster up, or extend one that runs", runUp},
		{"down", "stop a cluster and remove all of it", runDown},
		{"status", "show every component; exit 0 only when all are healthy", runStatus},
		{"list", "list the clusters of this host", runList},
		{"kubeconfig", "print the path of a cluster's kubeconfig", runKubeconfig},
		{"exec", "run a command inside a cluster or a node of it", runExec},
		{"virtual-node", "start, stop or restart the process of a virtual node", runVirtualNode},
		{"image", "build an image archive, or push one to a cluster", runImage},
	}
}

// hidden subcommands are what this program starts itself as.
func hidden() []command {
	return []command{
		{machine.InitCommand, "", func(context.Context, []string) error { return machine.Init(os.Stdin) }},
		{machine.DetachCommand, "", func(context.Context, []string) error { return machine.Detach(os.Stdin, os.Stdout) }},
		{cluster.RegistryCommand, "", runRegistry},
	}
}

// exitCode ends the program with a code and no further word.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	var code exitCode
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		printUsage()
		return exitCode(2)
	}
	for _, c := range append(commands(), hidden()...) {
		if c.name == args[0] {
			return c.run(ctx, args[1:])
		}
	}
	printUsage()
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		return nil
	}
	return fmt.Errorf("there is no command %q", args[0])
}

func printUsage() {
	fmt.Fprintln(os.Stderr, "usage: cluster COMMAND [flags]; `cluster COMMAND -h` lists the flags")
	for _, c := range commands() {
		fmt.Fprintf(os.Stderr, "  %-13s %s\n", c.name, c.usage)
	}
}
