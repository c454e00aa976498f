package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// Options of an agent.
type Options struct {
	// Socket is where the broker listens for this session. Required.
	Socket string
	// Argv is the client's command line. Required.
	Argv []string
	// Generation tells this agent from the others that the session has or had: one with a higher number is meant to take the session over from this one.
	// Default 0, the first.
	Generation int
	// Env is the client's environment. Default: the agent's own.
	Env []string
	// Log receives a line per event. Default os.Stderr.
	Log io.Writer
	// Grace is how long a client may flush when the agent itself is asked to end. It should be shorter than what the container's runtime grants. Default 25 s.
	Grace time.Duration
	// Relief is how long the agent waits, when it is asked to end while it serves, for the broker to say that it shall serve on until another agent has taken
	// over. Default 0: it does not ask.
	Relief time.Duration
	// StartTimeout is how long a client may take until it serves. Default 2 min; then it is killed and counts as failed.
	StartTimeout time.Duration
	// Burst is how many clients may die soon after they came to serve and still be followed at once; then pauses grow from 100 ms to 10 s. Default 3.
	Burst int
	// OOMScore is added to the client's oom_score_adj, so that the kernel kills it and not the agent. Its unit is a thousandth of the memory
	// that the container may have (Documentation/filesystems/proc.rst). Default 500.
	OOMScore int
}

// Agent runs the client of one session.
type Agent struct {
	o   Options
	log logger
}

// New checks the options.
func New(o Options) (*Agent, error) {
	if o.Socket == "" {
		return nil, errors.New("the broker's socket is not given")
	}
	if len(o.Argv) == 0 {
		return nil, errors.New("the client's command line is not given")
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Grace == 0 {
		o.Grace = 25 * time.Second
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 2 * time.Minute
	}
	if o.Burst == 0 {
		o.Burst = 3
	}
	if o.OOMScore == 0 {
		o.OOMScore = 500
	}
	return &Agent{o: o, log: logger{o.Log}}, nil
}

// ErrUnflushed: the client had to be killed before it had written everything out.
var ErrUnflushed = errors.New("the client did not finish in time")

// Run serves until the broker closes the session or ctx ends, and then ends the client in order. It adopts and reaps orphans of the whole process, so
// nothing else in the process may wait for children.
func (a *Agent) Run(ctx context.Context) error {
	// A parent's death signal comes at the death of the thread that forked. This one lives as long as Run.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := newReaper()
	if err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	defer r.close()
	linkCtx, unlink := context.WithCancel(context.Background())
	l := newLink(a.o.Socket)
	go l.run(linkCtx)
	defer l.wait()
	defer unlink()
	s := newSupervisor(a, r, l)
	defer s.drop()
	return s.run(ctx)
}
