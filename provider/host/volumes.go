package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SetUp implements provider.Volumes.
func (h *Host) SetUp(ctx context.Context, pod *corev1.Pod) error {
	volumes, err := h.o.Volumes.SetUp(ctx, pod)
	if err != nil {
		return err
	}
	h.mu.Lock()
	_, again := h.volumes[pod.UID]
	h.volumes[pod.UID] = volumes
	h.mu.Unlock()
	if again && h.o.Cgroups != nil {
		// The pod may have other sidecars than before. Limits that are in use already may not shrink; then they stay until the next change.
		_, _ = h.o.Cgroups.Create(pod)
	}
	return nil
}

// Unbind implements provider.Volumes.
func (h *Host) Unbind(ctx context.Context, uid types.UID) error { return h.o.Volumes.Unbind(ctx, uid) }

// Holders implements provider.Volumes.
func (h *Host) Holders(context.Context) ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(h.o.Root, "pods"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list directories of pods: %w", err)
	}
	uids := make([]types.UID, 0, len(entries))
	for _, entry := range entries {
		if entry.IsDir() {
			uids = append(uids, types.UID(entry.Name()))
		}
	}
	return uids, nil
}

// TearDown implements provider.Volumes; the pod's control group goes with its volumes.
func (h *Host) TearDown(ctx context.Context, uid types.UID) error {
	if err := h.o.Volumes.TearDown(ctx, uid); err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.volumes, uid)
	h.mu.Unlock()
	if h.o.Cgroups == nil {
		return nil
	}
	if err := h.o.Cgroups.Remove(ctx, uid); err != nil {
		return fmt.Errorf("remove control group of pod: %w", err)
	}
	return nil
}
