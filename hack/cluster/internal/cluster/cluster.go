package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/cgroup"
	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
)

// Cluster is a cluster that this process works on, under the cluster's lock.
type Cluster struct {
	self     string
	progress io.Writer
	cgroups  cgroup.Set
	probe    *prober
	unlock   func()

	mu    sync.Mutex // guards state against the steps that run at the same time
	state *State
}

// open locks the named cluster. The state is nil when there is none.
func open(ctx context.Context, name string, progress io.Writer) (*Cluster, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("only root can make namespaces, mounts and cgroups; run this as root")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cgroups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	waiting := time.AfterFunc(2*time.Second, func() {
		fmt.Fprintf(progress, "waiting for another command that works on cluster %s\n", name)
	})
	unlock, err := machine.Lock(ctx, "cluster-"+name)
	waiting.Stop()
	if err != nil {
		return nil, err
	}
	c := &Cluster{self: self, progress: progress, cgroups: cgroups, unlock: unlock}
	c.state, err = Load(name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		unlock()
		return nil, err
	}
	return c, nil
}

// Open locks a cluster that has to exist and run.
func Open(ctx context.Context, name string, progress io.Writer) (*Cluster, error) {
	c, err := open(ctx, name, progress)
	if err != nil {
		return nil, err
	}
	switch {
	case c.state == nil:
		err = fmt.Errorf("cluster %q: %w", name, ErrNotFound)
	case !c.state.alive():
		err = fmt.Errorf("cluster %q does not run any more; `cluster down --name %s` removes what is left", name, name)
	default:
		c.probe, err = newProber(c.state)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close gives the lock back. What runs goes on running.
func (c *Cluster) Close() { c.unlock() }

// State is what the state file says.
func (c *Cluster) State() *State { return c.state }

// update changes the state in memory and on disk.
func (c *Cluster) update(change func(*State)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.state)
	return c.state.save()
}

func (c *Cluster) node(name string) Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Nodes[name]
}

func (c *Cluster) say(format string, args ...any) { fmt.Fprintf(c.progress, format+"\n", args...) }

// NodeNames lists the nodes in order.
func (s *State) NodeNames() []string { return slices.Sorted(maps.Keys(s.Nodes)) }

// checkName accepts what can be a path element, a host name and a cgroup.
func checkName(name string) error {
	if name == "" || len(name) > 30 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name[0] == '-' {
		return fmt.Errorf("cluster name %q: use up to 30 lower-case letters, digits and dashes", name)
	}
	return nil
}
