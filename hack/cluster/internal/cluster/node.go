package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
	"github.com/sidemount/sidemount/hack/cluster/internal/pki"
)

// Host numbers of nodes in the machine's network.
const (
	firstNode    = 10 // node-1 is .11
	firstVirtual = 100
	maxNodes     = 50 // of each kind
)

// The paths of a node that programs and manifests take for granted. Each is bound to a directory of the node.
const (
	kubeletDir    = "/var/lib/kubelet"
	podLogs       = "/var/log/pods"
	containerLogs = "/var/log/containers"
	containerdDir = "/var/lib/containerd"
	containerdRun = "/run/containerd" // below /run, which is a tmpfs of the node
	cniDir        = "/var/lib/cni"    // bound to one directory for all nodes: it holds the pods' addresses
	sidemountDir  = "/var/lib/sidemount"
)

// mountPoints have to exist on the host.
var mountPoints = []string{kubeletDir, podLogs, containerLogs, containerdDir, cniDir, sidemountDir}

// describeNode fills in everything about a node but its processes.
func (s *State) describeNode(virtual bool, number int) Node {
	name, host := fmt.Sprintf("node-%d", number), firstNode+number
	if virtual {
		name, host = fmt.Sprintf("vn-%d", number), firstVirtual+number
	}
	dir := s.path("nodes", name)
	return Node{
		Name:             name,
		Virtual:          virtual,
		Address:          s.link().Address(host),
		Dir:              dir,
		Cgroup:           s.Cgroup + "/" + name,
		ContainerdSocket: filepath.Join(dir, "run", "containerd.sock"),
		ContainerdRoot:   filepath.Join(dir, "containerd"),
		KubeletDir:       filepath.Join(dir, "kubelet"),
		PodLogs:          filepath.Join(dir, "pods"),
		ContainerLogs:    filepath.Join(dir, "containers"),
		RootDir:          filepath.Join(dir, "root"),
		Kubeconfig:       s.path("kubeconfigs", name),
	}
}

// startNode gives the node its namespaces and its containerd. It needs nothing of the control plane.
func (c *Cluster) startNode(ctx context.Context, name string) error {
	n := c.node(name)
	if !n.Holder.Alive() {
		if err := c.makeNode(ctx, n); err != nil {
			return fmt.Errorf("set up node %s: %w", name, err)
		}
	}
	return c.ensure(ctx, c.containerdProgram(n))
}

// makeNode creates the namespaces: the detached process is in the cgroup that becomes the root of the cgroup namespace
// while it makes them, and the holder leaves that for one below, because version 2 allows no process next to children.
func (c *Cluster) makeNode(ctx context.Context, n Node) error {
	if err := c.cgroups.Create(n.Cgroup); err != nil {
		return err
	}
	l := c.launcher("")
	l.Cgroup = n.Cgroup
	holder, err := l.Launch(ctx, machine.Spec{
		Argv: []string{c.state.bin("pause"), n.Name},
		Env:  c.environment(""),
		Log:  c.state.path("log", n.Name+"-holder.log"),
		Node: &machine.NodeSetup{Hostname: n.Name, Tmpfs: []string{"/run"}, Binds: c.binds(n)},
	})
	if err != nil {
		return err
	}
	if err := c.cgroups.Join(n.Cgroup, holder.PID); err != nil {
		return err
	}
	if err := c.cgroups.Create(n.Cgroup + "/system"); err != nil {
		return err
	}
	if err := c.cgroups.Join(n.Cgroup+"/system", holder.PID); err != nil {
		return err
	}
	return c.update(func(s *State) {
		n := s.Nodes[n.Name]
		n.Holder = holder
		s.Nodes[n.Name] = n
	})
}

func (c *Cluster) binds(n Node) []machine.Bind {
	return []machine.Bind{
		{Source: filepath.Dir(n.ContainerdSocket), Target: containerdRun},
		{Source: n.ContainerdRoot, Target: containerdDir},
		{Source: n.KubeletDir, Target: kubeletDir},
		{Source: n.PodLogs, Target: podLogs},
		{Source: n.ContainerLogs, Target: containerLogs},
		{Source: c.state.path("cni", "lib"), Target: cniDir},
		{Source: filepath.Join(n.Dir, "sidemount"), Target: sidemountDir}, // where a CSI driver that runs in a pod keeps its state
		// All nodes write the rules of one network namespace, so they have to wait for each other.
		{Source: c.state.path("xtables.lock"), Target: "/run/xtables.lock", File: true},
	}
}

func (c *Cluster) containerdProgram(n Node) program {
	return program{
		name:    n.Name + "/containerd",
		node:    n.Name,
		timeout: 30 * time.Second,
		health:  Health{URL: "unix:" + n.ContainerdSocket},
		argv:    []string{c.state.bin("containerd"), "--config", c.state.path("containerd.toml"), "--log-level", "info"},
	}
}

func (c *Cluster) kubeletProgram(n Node) program {
	return program{
		name:    n.Name + "/kubelet",
		node:    n.Name,
		timeout: 60 * time.Second,
		health:  Health{URL: "http://" + n.Address + ":10248/healthz", Node: n.Name},
		argv: []string{c.state.bin("kubelet"),
			"--config=" + filepath.Join(n.Dir, "kubelet.json"),
			"--kubeconfig=" + n.Kubeconfig,
			"--hostname-override=" + n.Name,
			"--node-ip=" + n.Address,
			"--root-dir=" + kubeletDir,
		},
	}
}

// issueNode makes certificates and kubeconfig of the node. Ordinary or virtual, it is who the node authorizer knows, which
// lets it read the objects of its own pods only, those of their volumes included.
func (c *Cluster) issueNode(ca *pki.Authority, n Node) error {
	client := pki.Request{Name: n.Name + "-client", User: "system:node:" + n.Name, Groups: []string{"system:nodes"}}
	pair, err := ca.Issue(client)
	if err != nil {
		return err
	}
	serving, err := ca.Issue(pki.Request{
		Name: n.Name + "-serving", User: "system:node:" + n.Name, Groups: []string{"system:nodes"},
		Hosts: []string{n.Name, n.Address},
	})
	if err != nil {
		return err
	}
	if err := pki.WriteKubeconfig(n.Kubeconfig, c.state.Server, client.User, ca.Cert, pair); err != nil {
		return err
	}
	return c.update(func(s *State) {
		n := s.Nodes[n.Name]
		n.Serving = serving
		s.Nodes[n.Name] = n
	})
}
