package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
	"github.com/sidemount/sidemount/hack/cluster/internal/process"
)

// makeMachine makes everything that is neither Kubernetes nor a node. The intent is on disk before the first process.
func (c *Cluster) makeMachine(ctx context.Context, o UpOptions) error {
	dir := o.Dir
	if dir == "" {
		dir = filepath.Join(DefaultDir, o.Name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty and belongs to no cluster that this host knows; remove it or choose another --dir", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return err
	}
	c.state = &State{Name: o.Name, Dir: dir, Bin: o.Bin, BootID: bootID(), Cgroup: "/sidemount-" + o.Name,
		Components: map[string]Component{}, Nodes: map[string]Node{}}
	if n := c.state.describeNode(false, maxNodes); len(n.ContainerdSocket) > 100 {
		return fmt.Errorf("%s is too long: the path of a socket has at most 107 characters", dir)
	}
	if err := c.state.save(); err != nil {
		return err
	}
	if err := c.state.enlist(); err != nil {
		return err
	}
	if err := machine.MakeMountPoints(ctx, mountPoints); err != nil {
		return err
	}
	if err := c.cgroups.Create(c.state.Cgroup + "/control"); err != nil {
		return err
	}
	return c.startMachine(ctx)
}

// kubeletSysctls are the values that a kubelet sets when it finds others. They are the kernel's, not a namespace's: what
// the machine sees instead is a file with the value, and the host keeps its own.
var kubeletSysctls = map[string]string{
	"/proc/sys/vm/overcommit_memory":      "1\n",
	"/proc/sys/vm/panic_on_oom":           "0\n",
	"/proc/sys/kernel/panic":              "10\n",
	"/proc/sys/kernel/panic_on_oops":      "1\n",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000\n",
	"/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
}

func (c *Cluster) startMachine(ctx context.Context) error {
	scratch := c.state.path("files")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	first, err := machine.Start(machine.Options{
		Hostname: c.state.Name,
		Self:     c.self,
		Pause:    c.state.bin("pause"),
		Log:      c.state.path("log", "machine.log"),
		Files:    kubeletSysctls,
		Scratch:  scratch,
	}, c.record)
	if err != nil {
		return err
	}
	if err := c.cgroups.Join(c.state.Cgroup+"/control", first.PID); err != nil {
		return err
	}
	link, err := machine.Connect(ctx, first)
	if err != nil {
		return err
	}
	return c.update(func(s *State) { s.address(link) })
}

// record writes down the first process of the machine, before it does anything.
func (c *Cluster) record(first process.Ref) error {
	ns, err := process.PIDNamespace(first.PID)
	if err != nil {
		return err
	}
	return c.update(func(s *State) { s.Machine, s.PIDNamespace = first, ns })
}

// address fills in what follows from the slot.
func (s *State) address(l machine.Link) {
	s.Slot, s.Device, s.HostAddress, s.Address = l.Slot, l.Device(), l.HostAddress(), l.Address(2)
	s.Server = "https://" + net.JoinHostPort(s.Address, "6443")
	s.Kubeconfig, s.Kubectl, s.CA = s.path("kubeconfig"), s.path("kubectl"), s.path("pki", "ca.crt")
	s.Registry = Registry{Address: net.JoinHostPort(s.Address, "5000")}
	s.AuthRegistry = Registry{Address: net.JoinHostPort(s.Address, "5001"), Username: "sidemount", Password: rand.Text()}
}
