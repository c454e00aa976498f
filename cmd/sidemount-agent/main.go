// Command sidemount-agent is pid 1 of every sidecar and Mount Pod. It is bind-mounted into the client's image, so it is static and needs nothing of it.
//
//	sidemount-agent run [flags] -- CLIENT [ARGUMENT...]   keep a session and run the client that serves it
//	sidemount-agent probe PATH                           ask a mount for something and exit with the error's number
//	sidemount-agent statfs PATH                          print what the file system says of its size, or exit with the error's number
//	sidemount-agent supervise [flags]                    hold the sessions of this pod, on a node that has nothing of ours
//	sidemount-agent ready [flags] STATE                  ask supervise whether the pod's volumes are mounted, or serving
//	sidemount-agent passthrough                          the embedded client: serve a directory
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/sidemount/sidemount/mount/client"
	"github.com/sidemount/sidemount/mount/clients/passthrough"
	"github.com/sidemount/sidemount/sidecar/agent"
)

// version is set by the linker.
var version = "dev"

// Exit codes. Probe uses error numbers instead.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 0 {
		return usage()
	}
	switch args[0] {
	case "run":
		return runAgent(args[1:])
	case "probe":
		return onPath(args[1:], agent.Probe)
	case "statfs":
		return onPath(args[1:], printUsage)
	case "supervise":
		return runSupervisor(args[1:])
	case "ready":
		return runReady(args[1:])
	case "passthrough":
		return runPassthrough(args[1:])
	case "version":
		fmt.Println(version)
		return exitOK
	}
	return usage()
}

func usage() int {
	fmt.Fprintln(os.Stderr, "usage: sidemount-agent run [-socket PATH] [-grace DURATION] [-relief DURATION] [-start-timeout DURATION] [-restart-burst N] [-generation N] -- CLIENT [ARGUMENT...] | probe PATH | statfs PATH | supervise FLAGS | ready [-socket PATH] mounted|serving | passthrough | version")
	return exitUsage
}

// runAgent keeps a session until it is closed or SIGTERM comes.
func runAgent(args []string) int {
	// An agent is idle nearly always, and there is one for every volume of every pod.
	debug.SetGCPercent(20)
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	var o agent.Options
	flags.StringVar(&o.Socket, "socket", "/run/sidemount/session/agent.sock", "the broker's socket")
	flags.DurationVar(&o.Grace, "grace", 25*time.Second, "how long the client may flush after SIGTERM")
	flags.DurationVar(&o.Relief, "relief", 0, "how long to wait, on SIGTERM, for word that a successor will come; 0 does not wait")
	flags.DurationVar(&o.StartTimeout, "start-timeout", 2*time.Minute, "how long a client may take until it serves")
	flags.IntVar(&o.Generation, "generation", 0, "this agent's place among those of its session; a later one takes over from an earlier one")
	flags.IntVar(&o.Burst, "restart-burst", 3, "how many clients may die early before restarts are slowed down")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	o.Argv = flags.Args()
	a, err := agent.New(o)
	if err != nil {
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := a.Run(ctx); err != nil {
		return fail(err)
	}
	return exitOK
}

// runPassthrough is started by an agent, like any client.
func runPassthrough(args []string) int {
	if len(args) != 0 {
		return usage()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := client.Open()
	if err != nil {
		return fail(err)
	}
	if err := passthrough.Serve(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "sidemount-agent:", err)
		return s.Fail(err)
	}
	return exitOK
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "sidemount-agent:", err)
	return exitFailed
}
