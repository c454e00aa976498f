package machine

import (
	"fmt"
	"os"

	"github.com/sidemount/sidemount/hack/cluster/internal/cgroup"
	"golang.org/x/sys/unix"
)

// NodeSetup describes the namespaces of a node.
type NodeSetup struct {
	Hostname string
	// Tmpfs are directories that start empty on each node and are forgotten with it.
	Tmpfs []string
	// Binds are put in order, after Tmpfs. A target below a Tmpfs is created; any other has to exist.
	Binds []Bind
}

// Bind shows the directory or file Source at Target.
type Bind struct {
	Source string
	Target string
	// File says that both are files.
	File bool
}

// apply gives the calling thread new namespaces and sets them up. The caller is in the cgroup that becomes the root of
// the node's cgroup namespace.
func (n NodeSetup) apply() error {
	cgroups, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("create namespaces of the node: %w", err)
	}
	if err := unix.Sethostname([]byte(n.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := cgroups.Remount(); err != nil {
		return err
	}
	for _, dir := range n.Tmpfs {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	for _, b := range n.Binds {
		if err := b.mount(); err != nil {
			return err
		}
	}
	// Last, so that every bind is a peer group of its own: were it a peer of the mount that its source lies on, each
	// mount below the target would appear a second time below the source.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	return nil
}

func (b Bind) mount() error {
	if err := b.create(b.Source); err != nil {
		return err
	}
	if err := b.create(b.Target); err != nil {
		return err
	}
	if err := unix.Mount(b.Source, b.Target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", b.Source, b.Target, err)
	}
	return nil
}

func (b Bind) create(path string) error {
	if !b.File {
		return os.MkdirAll(path, 0o755)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
