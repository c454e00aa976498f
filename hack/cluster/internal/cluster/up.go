package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/build"
	"github.com/sidemount/sidemount/hack/cluster/internal/image"
	"github.com/sidemount/sidemount/hack/cluster/internal/pki"
	"golang.org/x/sync/errgroup"
)

// DefaultDir is where the clusters of a host lie, each in a directory of its name.
const DefaultDir = "/var/lib/sidemount-cluster"

// UpOptions say what has to run after Up.
type UpOptions struct {
	Name string
	// Dir of the cluster, DefaultDir/Name when empty. Ignored when the cluster exists.
	Dir string
	// Bin holds the programs.
	Bin string
	// Nodes and Virtual are numbers of nodes. Those that exist are never taken away.
	Nodes   int
	Virtual int
	// Process is started on each virtual node when its Program is set.
	Process VirtualProcess
	// Images are archives to push.
	Images []string
}

// Up brings the cluster to what the options ask for, from whatever state it is in, and leaves alone what runs. What is
// left of a cluster that died with its host, or of an attempt that was interrupted, is removed first.
func Up(ctx context.Context, o UpOptions, progress io.Writer) (*State, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c, err := open(ctx, o.Name, progress)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if c.state != nil && !c.state.alive() {
		c.say("cluster %s does not run any more, removing what is left of it", o.Name)
		if err := c.down(ctx); err != nil {
			return nil, err
		}
		c.state = nil
	}
	timer := newTimer(c)
	fresh := c.state == nil
	if fresh {
		if err := c.makeMachine(ctx, o); err != nil {
			return nil, fmt.Errorf("make machine: %w", err)
		}
		timer.done("machine")
	}
	if err := c.run(ctx, o, timer); err != nil {
		return nil, fmt.Errorf("%w\nlogs are in %s; `cluster down --name %s` removes what was started", err, c.state.path("log"), o.Name)
	}
	timer.total(fresh)
	return c.state, nil
}

func (o *UpOptions) check() error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("this host has no /dev/fuse, without which no file system can be served")
	}
	if err := o.Process.check(); err != nil {
		return err
	}
	if missing := build.Missing(o.Bin); missing != "" {
		return fmt.Errorf("%s is missing; run `cluster build` first", missing)
	}
	if o.Nodes < 0 || o.Virtual < 0 || o.Nodes > maxNodes || o.Virtual > maxNodes {
		return fmt.Errorf("ask for 0 to %d nodes of each kind", maxNodes)
	}
	for _, path := range []string{o.Dir, o.Bin} {
		if strings.HasPrefix(path, "/run/") || strings.HasPrefix(path, "/var/run/") {
			return fmt.Errorf("%s: nodes have a /run of their own and would not see it", path)
		}
	}
	return nil
}

// run starts whatever is missing. The order is etcd, API server, all others; nodes, the registry and its images need no
// API server and use the time until it is ready.
func (c *Cluster) run(ctx context.Context, o UpOptions, timer *timer) error {
	if c.state.Device == "" {
		return fmt.Errorf("the machine was never finished; `cluster down --name %s`, then up again", o.Name)
	}
	if err := c.writeConfig(); err != nil {
		return err
	}
	cr, err := c.issue()
	if err != nil {
		return err
	}
	if c.probe, err = newProber(c.state); err != nil {
		return err
	}
	if err := c.describeNodes(o, cr.ca); err != nil {
		return err
	}
	timer.done("certificates and configuration")

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.startImages(gctx, o, timer) })
	g.Go(func() error { return c.startNodes(gctx, timer) })
	g.Go(func() error { return c.startControlPlane(gctx, o, cr, timer) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := c.startRest(ctx, o, timer); err != nil {
		return err
	}
	return c.startVirtualProcesses(ctx, o.Process, timer)
}

func (c *Cluster) describeNodes(o UpOptions, ca *pki.Authority) error {
	var add []Node
	for i := range o.Nodes {
		add = append(add, c.state.describeNode(false, i+1))
	}
	for i := range o.Virtual {
		add = append(add, c.state.describeNode(true, i+1))
	}
	for _, n := range add {
		if _, ok := c.state.Nodes[n.Name]; ok {
			continue
		}
		if err := os.MkdirAll(n.RootDir, 0o755); err != nil {
			return err
		}
		host := net.ParseIP(n.Address).To4()[3]
		if err := c.state.link().AddAddress(c.state.Machine, int(host)); err != nil {
			return err
		}
		if err := c.update(func(s *State) { s.Nodes[n.Name] = n }); err != nil {
			return err
		}
		if err := c.issueNode(ca, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startImages(ctx context.Context, o UpOptions, timer *timer) error {
	archives := o.Images
	if old, ok := c.component("registry"); !ok || !old.Alive() {
		archives = append(build.BaseImages(c.state.Bin), archives...)
	}
	if err := c.ensure(ctx, c.registryProgram()); err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := image.Push(ctx, archive, image.Target{Address: c.state.Registry.Address}); err != nil {
			return err
		}
	}
	timer.done("registry and images")
	return nil
}

func (c *Cluster) startNodes(ctx context.Context, timer *timer) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range c.state.NodeNames() {
		g.Go(func() error { return c.startNode(ctx, name) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	timer.done("containerd on every node")
	return nil
}

func (c *Cluster) startControlPlane(ctx context.Context, o UpOptions, cr *credentials, timer *timer) error {
	if err := c.ensure(ctx, c.etcdProgram(cr)); err != nil {
		return err
	}
	timer.done("etcd")
	if err := c.ensure(ctx, c.apiserverProgram(cr)); err != nil {
		return err
	}
	timer.done("kube-apiserver")
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range []program{c.controllersProgram(cr), c.schedulerProgram(cr)} {
		g.Go(func() error { return c.ensure(gctx, p) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	timer.done("controllers, scheduler")
	return nil
}

// startRest starts what needs the API server and the nodes' containerd: the kubelets, and kube-proxy, which waits for a
// Node object, and only a kubelet makes one for sure.
func (c *Cluster) startRest(ctx context.Context, o UpOptions, timer *timer) error {
	g, ctx := errgroup.WithContext(ctx)
	timed := func(phase string, f func() error) {
		g.Go(func() error {
			err := f()
			if err == nil {
				timer.done(phase)
			}
			return err
		})
	}
	if o.Nodes > 0 {
		timed("kube-proxy", func() error { return c.ensure(ctx, c.proxyProgram()) })
	} else if o.Virtual > 0 {
		timed("kube-proxy started", func() error { return c.start(ctx, c.proxyProgram()) })
	}
	timed("default service account", func() error { return c.defaultServiceAccount(ctx, 30*time.Second) })
	for _, name := range c.state.NodeNames() {
		if n := c.node(name); !n.Virtual {
			timed(name+" ready", func() error { return c.startKubelet(ctx, n) })
		}
	}
	return g.Wait()
}

func (c *Cluster) startKubelet(ctx context.Context, n Node) error {
	if err := c.writeKubeletConfig(n); err != nil {
		return err
	}
	return c.ensure(ctx, c.kubeletProgram(n))
}
