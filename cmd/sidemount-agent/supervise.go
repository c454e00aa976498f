package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar/grant"
	"github.com/sidemount/sidemount/sidecar/readiness"
	"github.com/sidemount/sidemount/sidecar/solo"
)

// caVariable has the authorities of the service's certificate, in PEM. They are public.
const caVariable = "SIDEMOUNT_CA"

// runSupervisor holds the pod's sessions until SIGTERM.
func runSupervisor(args []string) int {
	debug.SetGCPercent(20)
	flags := flag.NewFlagSet("supervise", flag.ContinueOnError)
	o := solo.Options{}
	asking := grant.Options{CA: []byte(os.Getenv(caVariable))}
	flags.StringVar(&o.RunDir, "run-dir", "/run/sidemount/run", "directory of sockets and state; it must live as long as the pod")
	flags.StringVar(&o.MountsDir, "mounts-dir", "/run/sidemount/mounts", "directory of the mounts, mounted with Bidirectional propagation")
	flags.StringVar(&o.InstallDir, "install-dir", "/run/sidemount/bin", "directory in which the clients' containers find this program")
	flags.DurationVar(&o.Grace, "grace", 0, "how long ending the sessions may take (default 10s)")
	flags.DurationVar(&o.Broker.Orphan, "orphan-timeout", time.Hour, "how long calls may wait for a volume's client when none comes back; then they fail and the volume is mounted anew; 0 for ever")
	flags.StringVar(&asking.ServerName, "server-name", "", "name in the service's certificate")
	flags.StringVar(&asking.TokenFile, "token", "/run/sidemount/token/token", "file with the pod's token")
	flags.Func("server", "address of the service that knows the volumes, host:port; may be repeated", func(text string) error {
		asking.Servers = append(asking.Servers, text)
		return nil
	})
	flags.Func("volume", "volume of this pod and the identity of its client, name:uid:gid:session; may be repeated", func(text string) error {
		s, err := parseSession(text)
		o.Sessions = append(o.Sessions, s)
		return err
	})
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return exitUsage
	}
	var err error
	if o.Granter, err = grant.New(asking); err != nil {
		return fail(err)
	}
	if o.Agent, err = os.Executable(); err != nil {
		return fail(err)
	}
	holder, err := solo.New(o)
	if err != nil {
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := holder.Run(ctx); err != nil {
		return fail(err)
	}
	return exitOK
}

func parseSession(text string) (solo.Session, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 4 || parts[0] == "" || parts[3] == "" {
		return solo.Session{}, fmt.Errorf("%q: want name:uid:gid:session", text)
	}
	uid, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return solo.Session{}, fmt.Errorf("%q: uid: %w", text, err)
	}
	gid, err := strconv.ParseUint(parts[2], 10, 32)
	if err != nil {
		return solo.Session{}, fmt.Errorf("%q: gid: %w", text, err)
	}
	return solo.Session{Volume: parts[0], UID: uint32(uid), GID: uint32(gid), ID: mount.SessionID(parts[3])}, nil
}

// runReady is what a kubelet runs as a startup probe.
func runReady(args []string) int {
	flags := flag.NewFlagSet("ready", flag.ContinueOnError)
	socket := flags.String("socket", "/run/sidemount/status/status.sock", "the socket of whoever holds the sessions")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		return exitUsage
	}
	if err := readiness.Ask(context.Background(), *socket, flags.Arg(0)); err != nil {
		return fail(err)
	}
	return exitOK
}
