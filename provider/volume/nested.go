package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// nest makes the directories in a volume of files that other volumes of the pod are mounted on: the containers get the
// volume read-only, so that the runtime could not make them.
func nest(root *os.Root, pod *corev1.Pod, volume string) error {
	for _, dir := range nested(pod, volume) {
		if strings.HasPrefix(dir, "..") {
			return fmt.Errorf("mountPath of another volume leads to %q, a name of the volume's own: %w", dir, ErrUnsupported)
		}
		if err := root.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make mount point %s: %w", dir, err)
		}
	}
	return nil
}

// nested returns the paths in the volume at which some container mounts something else.
func nested(pod *corev1.Pod, volume string) []string {
	var dirs []string
	visit := func(mounts []corev1.VolumeMount) {
		for _, outer := range mounts {
			if outer.Name != volume || outer.SubPath != "" || outer.SubPathExpr != "" {
				continue
			}
			base := path.Clean("/"+outer.MountPath) + "/"
			for _, inner := range mounts {
				if dir, below := strings.CutPrefix(path.Clean("/"+inner.MountPath), base); below && dir != "" {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		visit(pod.Spec.InitContainers[i].VolumeMounts)
	}
	for i := range pod.Spec.Containers {
		visit(pod.Spec.Containers[i].VolumeMounts)
	}
	return dirs
}
