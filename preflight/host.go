package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Role is what the host is to become.
type Role string

const (
	// VirtualNode is a host of "sidemount node".
	VirtualNode Role = "virtual-node"
	// CSINode is an ordinary node, where "sidemount csi node" runs in a pod.
	CSINode Role = "csi-node"
)

// Roles are all there are.
var Roles = []Role{VirtualNode, CSINode}

// Check is one question to the host. ctx has a deadline.
type Check func(ctx context.Context) Result

// Options of a Host. Paths are those of the options and flags of the role's command.
type Options struct {
	// Role decides which checks are made. It is required.
	Role Role
	// Root is where the host's file tree is seen; by default "/". Another root is for tests: the kernel that is asked is always this one.
	Root string
	// StateDir is the directory of state and mounts, --root-dir of a virtual node and --state-dir of the CSI driver. It is required.
	StateDir string
	// RunDir is the directory of sockets. It is required.
	RunDir string
	// KubeletDir is the kubelet's root directory; only the role CSINode looks at it.
	KubeletDir string
	// AgentPath is the program sidemount-agent. It is required.
	AgentPath string
	// FUSE makes a FUSE mount and ends it; by default TryFUSE.
	FUSE func(ctx context.Context) (Kernel, error)
	// Control opens the control file system of FUSE and closes it; by default TryControl.
	Control func() error
	// More are made after the others.
	More []Check
	// Timeout bounds each check; by default 15 s.
	Timeout time.Duration
}

// Host is a machine under examination.
type Host struct{ o Options }

// New returns a Host; nothing is looked at yet.
func New(o Options) (*Host, error) {
	if o.Role != VirtualNode && o.Role != CSINode {
		return nil, fmt.Errorf("%w: %q", ErrRole, o.Role)
	}
	for name, path := range map[string]string{"state directory": o.StateDir, "directory of sockets": o.RunDir, "agent's path": o.AgentPath} {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%w: %s %q", ErrPath, name, path)
		}
	}
	if o.Role == CSINode && !filepath.IsAbs(o.KubeletDir) {
		return nil, fmt.Errorf("%w: kubelet's directory %q", ErrPath, o.KubeletDir)
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if o.FUSE == nil {
		o.FUSE = TryFUSE
	}
	if o.Control == nil {
		o.Control = TryControl
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	return &Host{o}, nil
}

// Examine makes all checks of the role, one after another. A check that has not ended in time counts as missing.
func (h *Host) Examine(ctx context.Context) Report {
	r := Report{Role: h.o.Role}
	for _, check := range h.checks() {
		ctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
		r.Results = append(r.Results, check(ctx))
		cancel()
	}
	return r
}

func (h *Host) checks() []Check {
	common := []Check{h.privilege, h.kernel, h.device, h.fuse, h.control, h.agent}
	var own []Check
	switch h.o.Role {
	case VirtualNode:
		own = []Check{h.propagation("--root-dir", h.o.StateDir), h.cgroups}
	case CSINode:
		own = []Check{h.kubelet, h.propagation("kubelet directory", h.o.KubeletDir), h.propagation("--state-dir", h.o.StateDir)}
	}
	checks := append(common, own...)
	checks = append(checks, h.disk, h.sockets, h.inotify, h.openFiles)
	return append(checks, h.o.More...)
}

// path is where a path of the host is seen.
func (h *Host) path(p string) string { return filepath.Join(h.o.Root, p) }

// privilege looks for what makes mounts.
func (h *Host) privilege(context.Context) Result {
	const check = "privilege"
	status, err := h.fields("/proc/thread-self/status")
	if err != nil {
		return unread(check, err)
	}
	var effective uint64
	if _, err := fmt.Sscanf(status["CapEff"], "%x", &effective); err != nil {
		return missing(check, "/proc/thread-self/status has no CapEff", "mount /proc")
	}
	if effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return missing(check, "no CAP_SYS_ADMIN, without which nobody can mount", "run it as root; in a container, with privileged: true")
	}
	return ok(check, "CAP_SYS_ADMIN")
}

// unread is the result of a check that could not look.
func unread(check string, err error) Result {
	cure := "see the error"
	if errors.Is(err, os.ErrPermission) {
		cure = "run it as root"
	}
	return missing(check, err.Error(), cure)
}
