package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/mount/clients/juicefs/worker"
)

// engineCommand is what a worker starts its engines with; it is not for people.
const engineCommand = "worker-engine"

// uids is a flag that may be given several times, each a list with commas.
type uids []uint32

func (u *uids) String() string { return fmt.Sprint([]uint32(*u)) }

// Set implements flag.Value.
func (u *uids) Set(text string) error {
	for _, one := range strings.Split(text, ",") {
		n, err := strconv.ParseUint(one, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a user's number", one)
		}
		*u = append(*u, uint32(n))
	}
	return nil
}

const workerUsage = `usage: sidemount-juicefs worker --socket PATH [--allow-uid UID[,UID…]] [--engines N] [--idle DURATION]

Serves the administrative commands of file systems (create, expand, delete and copy volumes) on a unix socket, for the CSI
controller in the same pod. It works on metadata engines directly: nothing is mounted, and no privilege is needed.

`

// runWorker is the subcommand "worker".
func runWorker(args []string, help io.Writer) int {
	var o worker.Options
	var allowed uids
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(help)
	flags.StringVar(&o.Socket, "socket", "", "where to listen; the directory is made with mode 0700 if it is missing, and must be writable")
	flags.Var(&allowed, "allow-uid", "a user who may give commands besides root and this process's own")
	flags.IntVar(&o.Engines, "engines", 32, "how many file systems may be open at once, each in a process of about 40 MiB")
	idle := flags.Duration("idle", 5*time.Minute, "how long a file system without commands stays open")
	flags.Usage = func() {
		fmt.Fprint(help, workerUsage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	if o.Socket == "" || flags.NArg() > 0 || o.Engines < 1 || *idle <= 0 {
		flags.Usage()
		return exitUsage
	}
	o.UIDs, o.Argv = allowed, []string{"/proc/self/exe", engineCommand, idle.String()}
	w, err := worker.New(o)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = w.Run(ctx)
	}
	if err != nil {
		logrus.WithError(err).Error("worker ends")
		return exitFailed
	}
	return 0
}

// runEngine is the subcommand that a worker starts, with its socket as file 3.
func runEngine(args []string) int {
	if len(args) != 1 {
		return exitUsage
	}
	idle, err := time.ParseDuration(args[0])
	if err != nil {
		return exitUsage
	}
	l, err := admin.Inherited(3, nil)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err = worker.ServeEngine(ctx, worker.EngineOptions{Listener: l, Parent: os.Stdin, Idle: idle, Prepare: prepare})
	}
	if err != nil {
		logrus.WithError(err).Error("engine ends")
		return exitFailed
	}
	return 0
}
