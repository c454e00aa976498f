package volume

import (
	corev1 "k8s.io/api/core/v1"
)

// Mount is a volume that is ready to be bound into containers.
type Mount struct {
	// HostPath is its root on the node.
	HostPath string
	// ReadOnly means that containers must not write to it, whatever their volumeMount says.
	ReadOnly bool
	// Foreign means that the file system is somebody else's and may hang.
	Foreign bool
}

// Bind is one mount of a container, resolved.
type Bind struct {
	// Volume is the name in pod.spec.volumes.
	Volume string
	// HostPath is what to bind, ContainerPath where, both absolute.
	HostPath, ContainerPath string
	// ReadOnly makes it read-only, RecursiveReadOnly its submounts too.
	ReadOnly, RecursiveReadOnly bool
	// Propagation is never empty.
	Propagation corev1.MountPropagationMode
}
