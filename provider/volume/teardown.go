package volume

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/volume/tree"
)

// Unbind ends the binds of subPaths of a pod whose containers have ended, so that nothing of this package holds a file system
// of somebody else any more. It is idempotent and asks no file system.
func (m *Manager) Unbind(_ context.Context, uid types.UID) error {
	if err := checkName("pod UID", string(uid)); err != nil {
		return err
	}
	if s := m.known(uid); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	return m.unbind(uid)
}

// unbind needs the state's mu, if there is one.
func (m *Manager) unbind(uid types.UID) error {
	points, err := mountpoint.Below(filepath.Join(m.PodDir(uid), subPathsDir))
	if err != nil {
		return err
	}
	return detachAll(points)
}

// TearDown ends the mounts that SetUp and Mounts have made and removes the pod's directory. The pod's containers must have
// ended. If something else is still mounted in there, it fails with ErrMounted before anything is removed, and can be called
// again. It is idempotent; an unknown UID is no error.
func (m *Manager) TearDown(ctx context.Context, uid types.UID) error {
	if err := checkName("pod UID", string(uid)); err != nil {
		return err
	}
	s := m.state(uid)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	m.options.Objects.Release(uid)
	m.options.Tokens.Forget(uid)
	if err := m.unbind(uid); err != nil {
		return err
	}
	dir := m.PodDir(uid)
	points, err := mountpoint.Below(dir)
	if err != nil {
		return err
	}
	if others := slices.DeleteFunc(slices.Clone(points), func(p string) bool { return own(dir, p) }); len(others) > 0 {
		return fmt.Errorf("%s: %w", strings.Join(others, ", "), ErrMounted)
	}
	if err := detachAll(points); err != nil {
		return err
	}
	// Removal has a guard of its own against a mount that has appeared since: it opens nothing across one.
	if err := tree.Remove(ctx, dir); err != nil {
		return err
	}
	m.forget(uid, s)
	return nil
}

// own tells whether the mount point is the root of a volume that SetUp mounts.
func own(podDir, point string) bool {
	rest, _ := strings.CutPrefix(point, filepath.Join(podDir, volumesDir)+"/")
	plugin, name, ok := strings.Cut(rest, "/")
	return ok && slices.Contains(plugins, plugin) && !strings.Contains(name, "/")
}

// detachAll ends mounts in the order given.
func detachAll(points []string) error {
	for _, p := range points {
		if err := mountpoint.Detach(p); err != nil {
			return err
		}
	}
	return nil
}
