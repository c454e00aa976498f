package volume

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/object"
)

// Objects reads Secrets and ConfigMaps, and reports the pods whose objects have changed. *object.Store is one.
type Objects interface {
	env.Objects
	// OnChange registers a function that is called with the UID of each pod that refers to a changed object.
	OnChange(func(types.UID))
}

// Tokens issues ServiceAccount tokens bound to a pod. *object.Tokens is one.
type Tokens interface {
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (object.Token, error)
}

// TrustBundles reads ClusterTrustBundles. *object.TrustBundles is one.
type TrustBundles interface {
	TrustAnchors(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error)
}

// Options configures a Manager.
type Options struct {
	// Root is the directory that holds "pods"; required, absolute.
	Root string
	// Objects and Tokens are required.
	Objects Objects
	Tokens  Tokens
	// TrustBundles may be nil; then projections of a ClusterTrustBundle are refused.
	TrustBundles TrustBundles
	// Allocatable is what the node can allocate: the default of limits in the downward API and of memory volumes. nil means
	// that neither has one.
	Allocatable func() corev1.ResourceList
	// RecursiveReadOnly tells whether the runtime of this pod makes submounts read-only too. nil means never.
	RecursiveReadOnly func(*corev1.Pod) bool
	// Deadline bounds each access to a file system of somebody else. Default 10 s.
	Deadline time.Duration
	// Failed is told when Run could not refresh a pod's volumes; it must not block. nil means that it is only logged.
	Failed func(*corev1.Pod, error)
}

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
