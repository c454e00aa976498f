package volume

import (
	"fmt"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Directory names of the plugins, as a kubelet has them.
const (
	pluginEmptyDir    = "kubernetes.io~empty-dir"
	pluginConfigMap   = "kubernetes.io~configmap"
	pluginSecret      = "kubernetes.io~secret"
	pluginDownwardAPI = "kubernetes.io~downward-api"
	pluginProjected   = "kubernetes.io~projected"
)

var plugins = []string{pluginEmptyDir, pluginConfigMap, pluginSecret, pluginDownwardAPI, pluginProjected}

const (
	volumesDir  = "volumes"
	subPathsDir = "volume-subpaths"
	// podMode keeps everybody but root out of the directories above the volumes.
	podMode = 0o750
)

// PodDir returns the directory of a pod, whether it exists or not.
func (m *Manager) PodDir(uid types.UID) string {
	return filepath.Join(m.options.Root, "pods", string(uid))
}

func (m *Manager) volumeDir(uid types.UID, plugin, name string) string {
	return filepath.Join(m.PodDir(uid), volumesDir, plugin, name)
}

// checkName refuses what would leave a directory when it is joined to it. The API allows none of these.
func checkName(what, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%s %q cannot be the name of a directory: %w", what, name, ErrUnsupported)
	}
	return nil
}
