package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// VirtualProcess says how to start the process of a virtual node.
type VirtualProcess struct {
	// Program is the path of sidemount, Agent that of sidemount-agent.
	Program string `json:"program,omitempty"`
	Agent   string `json:"agent,omitempty"`
	// Args are appended.
	Args []string `json:"args,omitempty"`
}

// argv is the command line of the process on a node of this cluster. This is the one place that knows sidemount's flags.
func (p VirtualProcess) argv(s *State, n Node) []string {
	argv := []string{p.Program, "node",
		"--node-name", n.Name,
		"--node-ip", n.Address, "--address", n.Address, // the nodes of a cluster share a network
		"--kubeconfig", n.Kubeconfig,
		"--runtime-endpoint", "unix://" + n.ContainerdSocket,
		"--root-dir", n.RootDir,
		"--tls-cert-file", n.Serving.Cert,
		"--tls-private-key-file", n.Serving.Key,
		"--client-ca-file", s.CA,
	}
	if p.Agent != "" {
		argv = append(argv, "--agent-path", p.Agent)
	}
	return append(argv, p.Args...)
}

// with returns p with what o sets.
func (p VirtualProcess) with(o VirtualProcess) VirtualProcess {
	p.Program, p.Agent = cmp.Or(o.Program, p.Program), cmp.Or(o.Agent, p.Agent)
	if len(o.Args) > 0 {
		p.Args = o.Args
	}
	return p
}

// check makes the paths absolute: the process starts in another directory.
func (p *VirtualProcess) check() error {
	for _, path := range []*string{&p.Program, &p.Agent} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(abs); err != nil {
			return err
		}
		*path = abs
	}
	return nil
}

func (c *Cluster) virtualProgram(n Node) program {
	return program{
		name:    n.Name + "/sidemount",
		node:    n.Name,
		timeout: 60 * time.Second,
		health:  Health{Node: n.Name},
		argv:    n.Process.argv(c.state, n),
	}
}

// startVirtualProcesses starts the process on every virtual node that has none.
func (c *Cluster) startVirtualProcesses(ctx context.Context, p VirtualProcess, timer *timer) error {
	g, ctx := errgroup.WithContext(ctx)
	started := false
	for _, name := range c.state.NodeNames() {
		n := c.node(name)
		if !n.Virtual || p.Program == "" && n.Process.Program == "" {
			continue
		}
		started = true
		g.Go(func() error { return c.startVirtual(ctx, name, p) })
	}
	err := g.Wait()
	if started && err == nil {
		timer.done("virtual nodes ready")
	}
	return err
}

// startVirtual starts the process of one node unless it runs, as before but for what p sets.
func (c *Cluster) startVirtual(ctx context.Context, name string, p VirtualProcess) error {
	if err := p.check(); err != nil {
		return err
	}
	err := c.update(func(s *State) {
		n := s.Nodes[name]
		n.Process = n.Process.with(p)
		s.Nodes[name] = n
	})
	if err != nil {
		return err
	}
	n := c.node(name)
	if n.Process.Program == "" {
		return fmt.Errorf("node %s has never had a process; say which one with --sidemount", name)
	}
	return c.ensure(ctx, c.virtualProgram(n))
}

// StartVirtual starts the process of a virtual node; its containerd and its pods are not touched.
func (c *Cluster) StartVirtual(ctx context.Context, name string, p VirtualProcess) error {
	if n, ok := c.state.Nodes[name]; !ok || !n.Virtual {
		return fmt.Errorf("cluster %s has no virtual node %q", c.state.Name, name)
	}
	return c.startVirtual(ctx, name, p)
}

// StopVirtual sends the signal to the process of a virtual node and waits for its end. A process that does not end in
// time is left running and reported: killing it would hide what the test that stopped it wants to know.
func (c *Cluster) StopVirtual(ctx context.Context, name string, sig unix.Signal, timeout time.Duration) error {
	component, ok := c.component(name + "/sidemount")
	if !ok {
		return fmt.Errorf("node %q has no sidemount process", name)
	}
	if !component.Alive() {
		return nil
	}
	if err := component.Signal(sig); err != nil {
		return err
	}
	if err := component.Wait(ctx, timeout); err != nil {
		return errors.Join(fmt.Errorf("signal %v did not end it", sig), err)
	}
	return nil
}
