package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
	"github.com/sidemount/sidemount/hack/cluster/internal/process"
	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
	"golang.org/x/sys/unix"
)

// Down stops the cluster and removes all that it has made on this host, and checks that nothing remains. It works on
// whatever is left of one, too. A cluster that does not exist is no error.
func Down(ctx context.Context, name string, progress io.Writer) error {
	c, err := open(ctx, name, progress)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.state == nil {
		c.say("cluster %s does not exist", name)
		return nil
	}
	return c.down(ctx)
}

func (c *Cluster) down(ctx context.Context) error {
	start := time.Now()
	if c.state.alive() {
		c.terminate(ctx)
	}
	if err := c.destroy(ctx); err != nil {
		return err
	}
	if err := c.remaining(); err != nil {
		return fmt.Errorf("cluster %s is not gone: %w", c.state.Name, err)
	}
	if err := os.RemoveAll(c.state.Dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(c.state.Dir)) // if it is empty now
	if err := os.RemoveAll(filepath.Join(listDir, c.state.Name)); err != nil {
		return err
	}
	if others, err := List(); err == nil && len(others) == 0 {
		if err := machine.RemoveMountPoints(ctx); err != nil {
			return err
		}
	}
	c.say("%5.1f s  cluster %s is down: no process, mount, cgroup, link or file of it remains", time.Since(start).Seconds(), c.state.Name)
	return nil
}

// stopOrder groups the components by the last part of their names. Virtual nodes come first, while API server and
// containerd still answer them; what is not named comes last and gets no SIGTERM at all.
var stopOrder = [][]string{
	{"sidemount"},
	{"kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager"},
	{"containerd", "kube-apiserver", "registry"},
}

// terminate lets the components end by themselves, a few seconds for each group. Nothing depends on it: it is there for
// those that have something to put in order, and for their logs.
func (c *Cluster) terminate(ctx context.Context) {
	for _, group := range stopOrder {
		var wg sync.WaitGroup
		for name, component := range c.state.Components {
			for _, kind := range group {
				if filepath.Base(name) == kind {
					wg.Go(func() { _ = component.Stop(ctx, unix.SIGTERM, 2*time.Second) })
				}
			}
		}
		wg.Wait()
	}
}

// destroy kills the first process of the machine, with which the kernel kills all others, and removes the cgroups.
func (c *Cluster) destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	connections := c.fuseConnections()
	if c.state.alive() {
		if err := c.state.Machine.Signal(unix.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
			return err
		}
	}
	if err := c.emptied(ctx, 5*time.Second); err != nil {
		// A process that waits for a FUSE server in a way that no signal ends: take the server away.
		c.say("%v; aborting %d FUSE connections", err, len(connections))
		for _, connection := range connections {
			_ = os.WriteFile(filepath.Join(connection, "abort"), []byte("1"), 0)
		}
		if err := c.emptied(ctx, 20*time.Second); err != nil {
			return err
		}
	}
	if err := c.cgroups.Remove(ctx, c.state.Cgroup); err != nil {
		return fmt.Errorf("remove cgroups: %w", err)
	}
	return c.unlinked(ctx)
}

// emptied waits until no process is left in the pid namespace.
func (c *Cluster) emptied(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return wait.Until(ctx, 50*time.Millisecond, func(context.Context) error {
		if c.state.alive() {
			return fmt.Errorf("pid %d, the first process of the machine, still runs", c.state.Machine.PID)
		}
		if left := c.leftProcesses(); len(left) > 0 {
			return fmt.Errorf("processes of the machine still run: %v", left)
		}
		return nil
	})
}

// leftProcesses are those in the machine's pid namespace.
func (c *Cluster) leftProcesses() []int {
	if c.state.BootID != bootID() {
		return nil
	}
	return process.InNamespace(c.state.PIDNamespace, c.state.Machine)
}

// deviceTaken reports whether the link of this cluster's name belongs to another one by now: a slot is free as soon as its
// machine has ended, however long its directory stays.
func (c *Cluster) deviceTaken() bool {
	names, err := List()
	if err != nil {
		return false
	}
	for _, name := range names {
		if s, err := Load(name); err == nil && name != c.state.Name && s.Device == c.state.Device && s.alive() {
			return true
		}
	}
	return false
}

// unlinked waits until the kernel has removed the veth pair, which it does a moment after the last process.
func (c *Cluster) unlinked(ctx context.Context) error {
	if c.state.Device == "" || c.deviceTaken() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return wait.Until(ctx, 50*time.Millisecond, func(context.Context) error {
		if c.state.link().Exists() {
			return fmt.Errorf("link %s still exists", c.state.Device)
		}
		return nil
	})
}

// remaining looks for everything that a cluster makes outside of its directory.
func (c *Cluster) remaining() error {
	var errs []error
	if left := c.leftProcesses(); len(left) > 0 {
		errs = append(errs, fmt.Errorf("processes %v", left))
	}
	for _, dir := range c.cgroups.Remaining(c.state.Cgroup) {
		errs = append(errs, fmt.Errorf("cgroup %s", dir))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if at := fields[4]; at == c.state.Dir || strings.HasPrefix(at, c.state.Dir+"/") {
			errs = append(errs, fmt.Errorf("mount on %s", at))
		}
	}
	return errors.Join(errs...)
}

// fuseConnections lists the control directories of the FUSE file systems that are mounted in the machine or on a node,
// and not on the host.
func (c *Cluster) fuseConnections() []string {
	ours := map[string]bool{}
	holders := []process.Ref{c.state.Machine}
	for _, n := range c.state.Nodes {
		holders = append(holders, n.Holder)
	}
	for _, h := range holders {
		if h.Alive() {
			for _, minor := range fuseMinors(fmt.Sprintf("/proc/%d/mountinfo", h.PID)) {
				ours[minor] = true
			}
		}
	}
	for _, minor := range fuseMinors("/proc/self/mountinfo") {
		delete(ours, minor)
	}
	var dirs []string
	for minor := range ours {
		dirs = append(dirs, filepath.Join("/sys/fs/fuse/connections", minor))
	}
	return dirs
}

// fuseMinors reads the device numbers of FUSE mounts, by which the kernel names their connections.
func fuseMinors(mountinfo string) []string {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil
	}
	var minors []string
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if ok && len(fields) > 2 && strings.HasPrefix(right, "fuse") && !strings.HasPrefix(right, "fusectl") {
			_, minor, _ := strings.Cut(fields[2], ":")
			minors = append(minors, minor)
		}
	}
	return minors
}
