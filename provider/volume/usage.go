package volume

import (
	"context"
	"errors"
	"io/fs"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/provider/volume/tree"
)

// Usage is what one emptyDir of a pod takes.
type Usage struct {
	// Volume is the name in pod.spec.volumes.
	Volume string
	// Bytes are allocated bytes and Inodes files and directories.
	Bytes, Inodes int64
	// Memory means that it takes memory and not the node's disk.
	Memory bool
	// Limit is the volume's sizeLimit; nil if it has none. The kernel keeps memory below it, nothing keeps the disk.
	Limit *resource.Quantity
}

// Exceeded tells whether the volume has outgrown its limit, for which a kubelet evicts the pod.
func (u Usage) Exceeded() bool {
	return u.Limit != nil && u.Limit.Sign() > 0 && u.Limit.CmpInt64(u.Bytes) < 0
}

// Usage measures the emptyDirs of a pod, in the order of the spec; those that are not made are left out. On disk that takes a
// walk through all files, which ends with ctx.
func (m *Manager) Usage(ctx context.Context, pod *corev1.Pod) ([]Usage, error) {
	var all []Usage
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil {
			continue
		}
		u, err := m.measure(ctx, pod, v)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, &Error{Volume: v.Name, Err: err}
		}
		all = append(all, u)
	}
	return all, nil
}

func (m *Manager) measure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Usage, error) {
	u := Usage{Volume: v.Name, Limit: v.EmptyDir.SizeLimit, Memory: v.EmptyDir.Medium == corev1.StorageMediumMemory}
	dir := m.volumeDir(pod.UID, pluginEmptyDir, v.Name)
	if !u.Memory {
		taken, err := tree.Measure(ctx, dir)
		u.Bytes, u.Inodes = taken.Bytes, taken.Inodes
		return u, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return u, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	u.Bytes, u.Inodes = int64(st.Blocks-st.Bfree)*st.Bsize, int64(st.Files-st.Ffree)
	return u, nil
}
