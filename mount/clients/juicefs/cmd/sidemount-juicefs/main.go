// Command sidemount-juicefs serves a JuiceFS volume. sidemount-agent starts it; it needs no privilege and no argument.
//
//	sidemount-juicefs           serve the session at the inherited file 3
//	sidemount-juicefs format    format the volume that is described on standard input, if it is not formatted yet
//	sidemount-juicefs worker    make, resize, copy and remove volumes for the CSI controller; see worker --help
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/juicedata/juicefs/pkg/utils"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/client"
	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
	"github.com/sidemount/sidemount/mount/clients/juicefs/filesystem"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// Exit codes besides those of client.Session.Fail.
const (
	exitFailed = 1
	exitUsage  = 64
)

func run(args []string) int {
	switch {
	case len(args) == 0:
		return serve()
	case len(args) == 1 && args[0] == "format":
		if err := format(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "format:", err)
			return exitFailed
		}
		return 0
	case args[0] == "worker":
		return runWorker(args[1:], os.Stderr)
	case args[0] == engineCommand:
		return runEngine(args[1:])
	}
	fmt.Fprintln(os.Stderr, "usage: sidemount-juicefs [format | worker --help]")
	return exitUsage
}

func serve() int {
	session, err := client.Open()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serveSession(ctx, session); err != nil {
		logrus.WithError(err).Error("volume cannot be served")
		return session.Fail(err)
	}
	return 0
}

func serveSession(ctx context.Context, session *client.Session) error {
	spec, err := prepare(session.Volume())
	if err != nil {
		return err
	}
	limit, err := engine.MemoryLimit(os.DirFS("/"))
	if err != nil {
		return err
	}
	connected := &connector{spec: spec, limit: limit}
	fs, err := filesystem.New(filesystem.Options{
		Session:  session,
		Open:     connected.open,
		Features: spec.Features(),
		Fatal: func(err error) {
			logrus.WithError(err).Error("session cannot be taken over")
			os.Exit(session.Fail(err))
		},
	})
	if err != nil {
		return err
	}
	if err := connected.connect(ctx, fs.Earlier()); err != nil {
		return err
	}
	return session.Serve(ctx, fs, client.Options{Flush: fs.Shutdown, Replayed: fs.Replayed})
}

// prepare parses the volume and sets what is global in this process: log output, which hides the volume's secrets, and the
// environment that the engine's libraries read.
func prepare(v mount.Volume) (*engine.Spec, error) {
	spec, err := engine.Parse(v)
	if err != nil {
		return nil, err
	}
	out := engine.Scrub(os.Stderr, spec.Secrets())
	logrus.SetOutput(out)
	log.SetOutput(out)
	utils.DisableLogColor()
	utils.SetOutput(out)
	for name, value := range spec.Env {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("%w: Secret key \"envs\": variable %q: %w", mount.ErrConfig, name, err)
		}
	}
	// vfs would look for a dump of handles in /tmp. Ours are in the session's memory.
	return spec, os.Setenv("_FUSE_STATE_PATH", "/proc/self/no-state")
}

// connector connects early, while an earlier client may still serve, and starts the engine when the session is ours.
type connector struct {
	spec  *engine.Spec
	limit uint64
	early *engine.Connection
}

func (c *connector) connect(ctx context.Context, before engine.Earlier) (err error) {
	c.early, err = engine.Connect(ctx, c.spec, before)
	return err
}

// open starts the engine on what an earlier client has left. One may have opened its session after we connected; then the connection is made again.
func (c *connector) open(ctx context.Context, before engine.Earlier) (*engine.Engine, error) {
	connection := c.early
	if connection.Earlier() != before {
		if err := connection.Close(); err != nil {
			return nil, err
		}
		var err error
		if connection, err = engine.Connect(ctx, c.spec, before); err != nil {
			return nil, err
		}
	}
	e, err := connection.Start(engine.Options{MemoryLimit: c.limit})
	if err != nil {
		return nil, err
	}
	if e.Budget.Heap > 0 {
		debug.SetMemoryLimit(int64(e.Budget.Heap))
	}
	logrus.WithFields(logrus.Fields{
		"limit": c.limit, "buffer": e.Budget.Buffer, "cache": e.Budget.Cache, "reduced": e.Budget.Reduced, "metadataSession": e.Sid,
	}).Info("engine started")
	return e, nil
}

// maxVolume bounds the description on standard input.
const maxVolume = 1 << 20

// format reads a mount.Volume as JSON, so that secrets stay out of arguments and environment.
func format(in io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(in, maxVolume))
	if err != nil {
		return fmt.Errorf("read the volume: %w", err)
	}
	var v mount.Volume
	if err := json.Unmarshal(text, &v); err != nil {
		return errors.New("the volume on standard input is not JSON of a volume")
	}
	spec, err := prepare(v)
	if err != nil {
		return err
	}
	return engine.Format(context.Background(), spec)
}
