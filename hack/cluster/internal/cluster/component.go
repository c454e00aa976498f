package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
	"github.com/sidemount/sidemount/hack/cluster/internal/process"
	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
)

// program is a component to be started.
type program struct {
	name   string // key in State.Components
	argv   []string
	env    []string
	health Health
	// node is the node to start it in, "" for the machine itself.
	node string
	// timeout for it to become healthy.
	timeout time.Duration
}

// ensure starts the component unless it runs, and waits until it is healthy.
func (c *Cluster) ensure(ctx context.Context, p program) error {
	if err := c.start(ctx, p); err != nil {
		return err
	}
	return c.healthy(ctx, p.name, p.timeout)
}

// start starts the component unless it runs already. One that an interrupted run has started, and had no time to write
// down, is known by its command line.
func (c *Cluster) start(ctx context.Context, p program) error {
	if old, ok := c.component(p.name); ok && old.Alive() {
		return nil
	}
	log := c.state.path("log", strings.ReplaceAll(p.name, "/", "-")+".log")
	launcher := c.launcher(p.node)
	ref, found := process.FindCommand(launcher.Holder, p.argv)
	if !found {
		var err error
		ref, err = launcher.Launch(ctx, machine.Spec{
			Argv: p.argv,
			Env:  append(c.environment(p.node), p.env...),
			Log:  log,
		})
		if err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
	}
	return c.update(func(s *State) {
		s.Components[p.name] = Component{Ref: ref, Argv: p.argv, Log: log, Health: p.health}
	})
}

// healthy waits until the component is well. One that has ended is not waited for: the end of its log is the error.
func (c *Cluster) healthy(ctx context.Context, name string, timeout time.Duration) error {
	component, _ := c.component(name)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := wait.Until(ctx, 100*time.Millisecond, func(ctx context.Context) error {
		if !component.Alive() {
			return wait.Permanent(fmt.Errorf("it has ended"))
		}
		return c.probe.check(ctx, component)
	})
	if err != nil {
		return fmt.Errorf("%s is not healthy: %w; end of %s:\n%s", name, err, component.Log, tail(component.Log, 8))
	}
	return nil
}

func (c *Cluster) component(name string) (Component, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	component, ok := c.state.Components[name]
	return component, ok
}

// launcher starts processes on the node, or on the machine when node is "".
func (c *Cluster) launcher(node string) machine.Launcher {
	l := machine.Launcher{Self: c.self, Holder: c.state.Machine, Cgroups: c.cgroups, Cgroup: c.state.Cgroup + "/control"}
	if node != "" {
		n := c.node(node)
		l.Holder, l.Cgroup = n.Holder, n.Cgroup+"/system"
	}
	return l
}

// environment is what every process gets: nothing of the caller's but the way to programs.
func (c *Cluster) environment(node string) []string {
	env := []string{
		"PATH=" + c.state.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"TMPDIR=/tmp",
	}
	if node != "" {
		env = append(env, "NODE_NAME="+node)
	}
	return env
}

// tail returns the last lines of a file, cut to a length that fits a terminal.
func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	for i, l := range all {
		if len(l) > 300 {
			all[i] = l[:300] + "…"
		}
	}
	return "  " + strings.Join(all, "\n  ")
}
