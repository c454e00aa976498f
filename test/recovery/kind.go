package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/sidemount/sidemount/test/lab"
)

// kind is a way to kill.
type kind struct {
	name string
	// strike kills. What has to be there again afterwards is checked by the caller.
	strike func(ctx context.Context, t *trial, s *subject) error
	// cause is how the node's log names the end of the client that follows, empty if the client lives on.
	cause string
	// agentLives says whether the agent must be the same afterwards.
	agentLives bool
	// alone is for what takes one of the two holders away: while it is not back, nobody may take the other one.
	alone alone
	// handsOver is for what gives the volume to another client in order: nobody dies.
	handsOver bool
}

type alone int

const (
	together             alone = iota // may coincide with everything
	takesAgent                        // not while the broker is away
	takesEveryonesBroker              // not while any agent is away
)

var allKinds = []kind{
	{name: "client", strike: killClient, cause: "signal: killed", agentLives: true},
	{name: "oom", strike: exhaust, cause: "oom", agentLives: true},
	{name: "agent", strike: killAgent, cause: "agent ended", alone: takesAgent},
	{name: "stop", strike: stopClient, cause: "hung", agentLives: true},
	{name: "upgrade", strike: upgradeClient, handsOver: true},
	{name: "node", strike: killNode, agentLives: true, alone: takesEveryonesBroker},
}

// setKinds takes names of kinds. A name that both places have means both, unless it ends in @sidecar or @mountpod.
func (o *options) setKinds(text string) error {
	o.only = text
	for name := range strings.SplitSeq(text, ",") {
		name, place, _ := strings.Cut(name, "@")
		is := func(k kind) bool { return k.name == name }
		i, j := slices.IndexFunc(allKinds, is), slices.IndexFunc(mountPodKinds, is)
		if place == "mountpod" {
			i = -1
		}
		if place == "sidecar" {
			j = -1
		}
		if i < 0 && j < 0 {
			return fmt.Errorf("there is no kind %q", name)
		}
		if i >= 0 {
			o.kinds = append(o.kinds, allKinds[i])
		}
		if j >= 0 {
			o.mountPodKinds = append(o.mountPodKinds, mountPodKinds[j])
		}
	}
	return nil
}

// everyKind are the kinds of a run, each name once.
func (o *options) everyKind() []kind {
	all := slices.Clone(o.kinds)
	for _, k := range o.mountPodKinds {
		if !slices.ContainsFunc(all, func(other kind) bool { return other.name == k.name }) {
			all = append(all, k)
		}
	}
	return all
}

// killClient takes the client away in the middle of what it does.
func killClient(_ context.Context, _ *trial, s *subject) error {
	return s.signal(syscall.SIGKILL, s.client)
}

// stopClient makes the client hang: it is there and does nothing any more.
func stopClient(_ context.Context, _ *trial, s *subject) error {
	return s.signal(syscall.SIGSTOP, s.client)
}

// killAgent takes the first process of the sidecar's container away, and so the whole container.
func killAgent(_ context.Context, _ *trial, s *subject) error {
	return s.signal(syscall.SIGKILL, s.agent)
}

// killNode takes the virtual node's process away, with the broker in it, and starts it again.
func killNode(ctx context.Context, t *trial, _ *subject) error {
	_, err := t.lab.Cluster(ctx, "virtual-node", "restart", "--name", t.lab.Name, "--node", lab.VirtualNode, "--signal", "KILL")
	return err
}

// signal sends a signal to a process of the subject's sidecar.
func (s *subject) signal(signal syscall.Signal, which func() (int, error)) error {
	pid, err := which()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}
