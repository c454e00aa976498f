package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Driver is who owns the tree of control groups; it must be the runtime's.
type Driver string

const (
	// Cgroupfs means that groups are made as directories.
	Cgroupfs Driver = "cgroupfs"
	// Systemd means that systemd makes them.
	Systemd Driver = "systemd"
)

const (
	// DefaultRoot is where the hierarchies are mounted.
	DefaultRoot = "/sys/fs/cgroup"
	// DefaultParent is the group of all pods.
	DefaultParent = "/sidemount"
	// removeTimeout bounds the wait for the last processes of a group to be gone, if the caller sets no deadline.
	removeTimeout = 10 * time.Second
	// removeInterval is the pause between attempts; the kernel offers no event that works on both versions.
	removeInterval = 20 * time.Millisecond

	podPrefix = "pod"
)

// ErrBusy means that processes are left in the group.
var ErrBusy = errors.New("control group has processes")

// Options of a Manager.
type Options struct {
	// Root is where the hierarchies are mounted; by default DefaultRoot.
	Root string
	// Parent is the absolute path, within each hierarchy, of the group of all pods; by default DefaultParent. It is created. Two
	// nodes on one machine need different ones.
	Parent string
	// Driver is by default Cgroupfs.
	Driver Driver
}

// Manager makes and removes the control groups of pods. Its methods may be called concurrently for different pods.
type Manager struct {
	parent string
	driver Driver
	tree   tree
}

// tree is the file system of one version of control groups.
type tree interface {
	// create makes a group and its parents and writes the limits, also if it exists.
	create(group string, l limits) error
	// dirs returns the directories of a group, whether they exist or not.
	dirs(group string) []string
}

// New looks at which version is mounted at the root; it creates nothing.
func New(opts Options) (*Manager, error) {
	if opts.Root == "" {
		opts.Root = DefaultRoot
	}
	if opts.Parent == "" {
		opts.Parent = DefaultParent
	}
	if opts.Driver == "" {
		opts.Driver = Cgroupfs
	}
	if opts.Driver != Cgroupfs && opts.Driver != Systemd {
		return nil, fmt.Errorf("unknown cgroup driver %q", opts.Driver)
	}
	if parent := path.Clean(opts.Parent); !path.IsAbs(parent) || parent == "/" {
		return nil, fmt.Errorf("cgroup parent %q is not an absolute path below the root", opts.Parent)
	}
	m := &Manager{parent: path.Clean(opts.Parent), driver: opts.Driver}
	if _, err := os.Stat(filepath.Join(opts.Root, controllersFile)); err == nil {
		m.tree = &unified{root: opts.Root}
		return m, nil
	}
	v1, err := newLegacy(opts.Root)
	if err != nil {
		return nil, err
	}
	m.tree = v1
	return m, nil
}

// Name returns a pod's group in the form that the runtime wants as cgroup parent of the sandbox.
func (m *Manager) Name(uid types.UID) string {
	if m.driver == Systemd {
		// In the name of a slice a dash stands for a level of the tree.
		return slice(m.parent) + "-" + podPrefix + strings.ReplaceAll(string(uid), "-", "_") + ".slice"
	}
	return path.Join(m.parent, podPrefix+string(uid))
}

func slice(parent string) string {
	parts := strings.Split(strings.Trim(parent, "/"), "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "-", "_")
	}
	return strings.Join(parts, "-")
}

// Create makes a pod's group, or brings the limits of an existing one up to date, and returns its name.
func (m *Manager) Create(pod *corev1.Pod) (string, error) {
	name := m.Name(pod.UID)
	if m.driver == Systemd {
		return name, nil
	}
	if err := m.tree.create(name, podLimits(pod)); err != nil {
		return "", fmt.Errorf("create control group %s: %w", name, err)
	}
	return name, nil
}

// Remove removes a pod's group and what is left below it. It waits until the processes in it are gone, no longer than ctx or
// ten seconds, and then returns an error that matches ErrBusy: it never kills. A group that does not exist is not an error.
func (m *Manager) Remove(ctx context.Context, uid types.UID) error {
	if m.driver == Systemd {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	name := m.Name(uid)
	if err := removeTrees(ctx, m.tree.dirs(name)); err != nil {
		return fmt.Errorf("remove control group %s: %w", name, err)
	}
	return nil
}

// Pods returns the pods that have a group, whether or not they still exist.
func (m *Manager) Pods() ([]types.UID, error) {
	if m.driver == Systemd {
		return nil, nil
	}
	var uids []types.UID
	for _, dir := range m.tree.dirs(m.parent) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		for _, e := range entries {
			if uid, ok := strings.CutPrefix(e.Name(), podPrefix); ok && e.IsDir() && uid != "" {
				uids = append(uids, types.UID(uid))
			}
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

// removeTrees removes the groups below each of dirs and then these. The kernel refuses while there are processes, which for a
// container that has just ended passes within milliseconds.
func removeTrees(ctx context.Context, dirs []string) error {
	ticker := time.NewTicker(removeInterval)
	defer ticker.Stop()
	for {
		var errs []error
		for _, dir := range dirs {
			errs = append(errs, tryRemove(dir))
		}
		err := errors.Join(errs...)
		if err == nil || !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

func tryRemove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		// The files of a group vanish with it; only groups are directories.
		if !e.IsDir() {
			continue
		}
		if err := tryRemove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return rmdir(dir)
}
