package solo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar/grant"
	"github.com/sidemount/sidemount/sidecar/readiness"
)

// Granter tells what the pod's volumes are. *grant.Client is one.
type Granter interface {
	Ask(ctx context.Context, volumes []string) ([]grant.Result, error)
}

// Session is a volume of the pod.
type Session struct {
	// ID names the directory of its socket.
	ID mount.SessionID
	// Volume is its name in the pod.
	Volume string
	// UID and GID are those of its client.
	UID, GID uint32
}

// Options of a Holder.
type Options struct {
	// Sessions of the pod. Required.
	Sessions []Session
	// Granter is asked for volumes. Required.
	Granter Granter
	// RunDir is for sockets and the broker's journal; it must live as long as the pod. Required.
	RunDir string
	// MountsDir is where the mounts appear, each in a directory of its volume's name. It must be mounted with propagation to the host. Required.
	MountsDir string
	// Agent is the agent's program; it is installed in InstallDir for the clients' containers. Both are required.
	Agent, InstallDir string
	// Grace is how long the end of all sessions may take. Their clients' containers have ended before as a rule, and then it takes none. Default 10 s.
	Grace time.Duration
	// Retry is the first pause after a failure; it doubles up to 30 s. Default 1 s.
	Retry time.Duration
	// Broker has further options of the broker; directories and OnEvent are set here.
	Broker broker.Options
	// Log receives what happens. Default logrus.StandardLogger().
	Log logrus.FieldLogger
}

// Holder holds the sessions of its pod.
type Holder struct {
	o      Options
	broker *broker.Broker
	// wake tells keep that a session needs its volume.
	wake chan struct{}

	mu      sync.Mutex                // guards what follows
	wanted  map[mount.SessionID]bool  // sessions that need their volume
	reasons map[mount.SessionID]error // why a wanted session has none
	changed chan struct{}             // closed and replaced at every change of the two
}

// New checks the options.
func New(o Options) (*Holder, error) {
	if len(o.Sessions) == 0 || o.Granter == nil {
		return nil, errors.New("the pod's volumes and the service that knows them must be given")
	}
	if o.RunDir == "" || o.MountsDir == "" || o.Agent == "" || o.InstallDir == "" {
		return nil, errors.New("the directories and the agent's program must be given")
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	h := &Holder{
		o: o, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		wanted: map[mount.SessionID]bool{}, reasons: map[mount.SessionID]error{},
	}
	own := o.Broker
	own.RunDir, own.StateDir, own.AgentPath = o.RunDir, filepath.Join(o.RunDir, "state"), o.Agent
	own.OnEvent, own.Log = h.onEvent, o.Log
	// The pod's containers have bound the mounts; a kubelet cannot even start one of them again on a dead mount.
	own.Cover = true
	var err error
	h.broker, err = broker.New(own)
	return h, err
}

// Run holds the sessions until ctx ends, and then ends them in order.
func (h *Holder) Run(ctx context.Context) error {
	if err := install(h.o.Agent, h.o.InstallDir); err != nil {
		return err
	}
	status, err := readiness.Listen(h.statusSocket())
	if err != nil {
		return err
	}
	defer status.Close()
	// The broker outlives ctx: it is needed to end the sessions.
	brokerCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.broker.Run(brokerCtx) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() { readiness.Serve(ctx, status, h.reached) })
	parts.Go(func() { h.keep(ctx) })
	select {
	case err = <-ended:
		cancel()
		status.Close()
		parts.Wait()
		return fmt.Errorf("broker: %w", err)
	case <-ctx.Done():
	}
	status.Close()
	parts.Wait()
	err = h.closeAll(context.WithoutCancel(ctx))
	stop()
	return errors.Join(err, <-ended)
}

// closeAll ends all sessions side by side.
func (h *Holder) closeAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.o.Grace)
	defer cancel()
	errs := make([]error, len(h.o.Sessions))
	var all sync.WaitGroup
	for i, s := range h.o.Sessions {
		all.Go(func() { errs[i] = h.broker.Close(ctx, s.ID, h.o.Grace) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// install copies the agent to where the clients' containers find it, as a whole: those that run keep theirs.
func install(program, dir string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	next, err := os.CreateTemp(dir, ".agent-*")
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	defer os.Remove(next.Name())
	_, err = next.Write(content)
	if err = errors.Join(err, next.Chmod(0o755), next.Close()); err == nil {
		err = os.Rename(next.Name(), filepath.Join(dir, "sidemount-agent"))
	}
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	return nil
}
