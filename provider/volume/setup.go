package volume

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"
)

// parallel bounds the volumes of one pod that are made at the same time: most of the time is spent waiting for the API.
const parallel = 4

// SetUp makes every volume of the pod and returns them by name. It is idempotent and brings volumes of files up to date, so
// that it serves a changed pod as well; what has not changed costs no disk access. The error is an *Error: of the first
// volume, in the order of the spec, that could not be made. A volume of files that cannot be updated keeps its content.
func (m *Manager) SetUp(ctx context.Context, pod *corev1.Pod) (map[string]Mount, error) {
	if err := checkName("pod UID", string(pod.UID)); err != nil {
		return nil, err
	}
	s := m.state(pod.UID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, ErrTornDown
	}
	s.pod = pod
	m.options.Objects.Acquire(pod)
	return m.setUp(ctx, s)
}

// Refresh brings the pod's volumes of files up to date with the API and with the pod's own metadata.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod) error {
	_, err := m.SetUp(ctx, pod)
	return err
}

// made is what became of one volume.
type made struct {
	mount Mount
	// digest identifies the content of a volume of files.
	digest [sha256.Size]byte
	// due is when the content must be looked at again without being told; zero means never.
	due time.Time
	// unused: it is somebody else's to make, and no container mounts it.
	unused bool
	err    error
}

// setUp needs s.mu.
func (m *Manager) setUp(ctx context.Context, s *state) (map[string]Mount, error) {
	if err := os.MkdirAll(filepath.Join(m.PodDir(s.pod.UID), volumesDir), podMode); err != nil {
		return nil, fmt.Errorf("make directory of pod: %w", err)
	}
	volumes := s.pod.Spec.Volumes
	results := make([]made, len(volumes))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range volumes {
		if v := volumes[i]; (v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.CSI != nil) && !mounted(s.pod, v.Name) {
			results[i].unused = true
			continue
		}
		known := s.digests[volumes[i].Name]
		group.Go(func() error {
			results[i] = m.setUpVolume(ctx, s.pod, &volumes[i], known)
			return nil // one volume that fails must not keep the others from being made
		})
	}
	_ = group.Wait()
	return m.collect(s, results)
}

// collect needs s.mu.
func (m *Manager) collect(s *state, results []made) (map[string]Mount, error) {
	mounts := make(map[string]Mount, len(results))
	var failed error
	var due time.Time
	for i, r := range results {
		name := s.pod.Spec.Volumes[i].Name
		if r.unused {
			continue
		}
		if r.err != nil {
			if failed == nil {
				failed = &Error{Volume: name, Err: r.err}
			}
			continue
		}
		mounts[name] = r.mount
		s.digests[name] = r.digest
		if !r.due.IsZero() && (due.IsZero() || r.due.Before(due)) {
			due = r.due
		}
	}
	if !due.IsZero() {
		m.refreshAt(s.pod.UID, due)
	}
	if failed != nil {
		return nil, failed
	}
	return mounts, nil
}

func (m *Manager) setUpVolume(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, known [sha256.Size]byte) made {
	if err := checkName("volume", v.Name); err != nil {
		return made{err: err}
	}
	switch {
	case v.EmptyDir != nil:
		mount, err := m.emptyDir(pod, v)
		return made{mount: mount, err: err}
	case v.HostPath != nil:
		mount, err := m.hostPath(ctx, v.HostPath)
		return made{mount: mount, err: err}
	}
	files, err := m.filesOf(pod, v)
	if err != nil {
		return made{err: err}
	}
	return m.setUpFiles(ctx, pod, v.Name, files, known)
}

// mounted tells whether a container of the pod mounts the volume. A kubelet does not look at volumes that none does.
func mounted(pod *corev1.Pod, volume string) bool {
	mounts := func(all []corev1.VolumeMount) bool {
		return slices.ContainsFunc(all, func(m corev1.VolumeMount) bool { return m.Name == volume })
	}
	in := func(c corev1.Container) bool { return mounts(c.VolumeMounts) }
	return slices.ContainsFunc(pod.Spec.InitContainers, in) || slices.ContainsFunc(pod.Spec.Containers, in) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return mounts(c.VolumeMounts) })
}

// unsupported says why a volume cannot be made here, in words for the person who wrote the pod.
func unsupported(v *corev1.Volume) error {
	switch {
	case v.PersistentVolumeClaim != nil:
		return fmt.Errorf("PersistentVolumeClaim %q is not bound to a volume that this node serves: %w", v.PersistentVolumeClaim.ClaimName, ErrUnsupported)
	case v.Ephemeral != nil:
		return fmt.Errorf("generic ephemeral volume is not bound to a volume that this node serves: %w", ErrUnsupported)
	case v.CSI != nil:
		return fmt.Errorf("inline volume of CSI driver %q, which this node does not run: %w", v.CSI.Driver, ErrUnsupported)
	case v.Image != nil:
		return fmt.Errorf("image volumes are not served by this node: %w", ErrUnsupported)
	case v.GitRepo != nil:
		return fmt.Errorf("gitRepo volumes were removed from Kubernetes; clone in an init container into an emptyDir instead: %w", ErrUnsupported)
	}
	return fmt.Errorf("this kind of volume needs a driver on the node; schedule the pod on an ordinary node: %w", ErrUnsupported)
}
