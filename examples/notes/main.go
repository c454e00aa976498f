// Command notes is a Sidemount client to start another one from: a volume of sixteen notes, which are in memory and outlive every process that serves them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sidemount/sidemount/mount/client"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // the end: Serve flushes and returns
	defer stop()
	session, err := client.Open() // from the agent: the volume, with its options and its Secret
	if err != nil {
		fmt.Fprintln(os.Stderr, "notes:", err)
		return 1
	}
	fs, err := newFS(session.Volume(), session.Memory())
	if err == nil {
		err = session.Serve(ctx, fs, client.Options{}) // nothing is kept back, so there is nothing to flush
	}
	if err != nil {
		return session.Fail(err) // the pod's Event says why
	}
	return 0
}
