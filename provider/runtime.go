package provider

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/cri"
)

// Runtime runs sandboxes and containers. All methods honour their context's deadline.
type Runtime interface {
	States
	Sandboxes
	Containers
}

// States tells what the runtime has.
type States interface {
	// Pods returns all pods that the runtime has for this node, without the details that only Pod gives.
	Pods(ctx context.Context) ([]cri.Pod, error)
	// Pod returns one pod in full; a pod that the runtime does not have is empty but for its UID.
	Pod(ctx context.Context, uid types.UID) (cri.Pod, error)
	// Events streams what happens until ctx ends, when it closes the channel. A Resync comes first and after every gap.
	Events(ctx context.Context) (<-chan cri.Event, error)
	// ContainerHash identifies what of a container's specification cannot be changed without a restart. It equals
	// cri.Container.Hash of a container that was created from an equal specification.
	ContainerHash(c *corev1.Container) string
	// Unenforced reports which resources of a running container are not in force as its specification says. It does not block.
	Unenforced(pod *corev1.Pod, c *corev1.Container, have cri.Container) (cpu, memory bool)
}

// Sandboxes runs sandboxes.
type Sandboxes interface {
	// RunSandbox creates and starts a sandbox of the pod as it runs, network included.
	RunSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (id string, err error)
	// StopSandbox kills what still runs in it and releases its network. It is idempotent.
	StopSandbox(ctx context.Context, id string) error
	// RemoveSandbox removes a stopped sandbox with its containers. It is idempotent.
	RemoveSandbox(ctx context.Context, id string) error
	// RemoveLogs removes what is left of the logs of a pod that has no sandbox any more. It is idempotent.
	RemoveLogs(ctx context.Context, pod *corev1.Pod) error
}

// Containers runs containers.
type Containers interface {
	// CreateContainer creates a container; an error that wraps ErrContainerConfig is the specification's fault.
	CreateContainer(ctx context.Context, r CreateRequest) (id string, err error)
	// StartContainer starts a created container.
	StartContainer(ctx context.Context, id string) error
	// StopContainer sends the stop signal, waits for at most grace (whole seconds) and kills. It is idempotent.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	// RemoveContainer removes a container that has ended, with its log. It is idempotent.
	RemoveContainer(ctx context.Context, c cri.Container) error
	// ResizeContainer puts the resources of the specification in force in a running container.
	ResizeContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string) error
	// ExecSync runs a command in a running container and waits for it. A command that runs longer than timeout fails with
	// cri.ErrTimeout; one that ends with an exit code other than 0 is no error.
	ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (output []byte, exitCode int32, err error)
}

// CreateRequest is a container to create.
type CreateRequest struct {
	// Pod is the pod as it runs, with its sidecars.
	Pod *corev1.Pod
	// Container is one of Pod's containers of any kind.
	Container *corev1.Container
	// Sandbox is the ready sandbox to create it in.
	Sandbox cri.Sandbox
	// Attempt is the restart count.
	Attempt uint32
	// Image is what Images returned for the container's image.
	Image string
	// PodIPs are the pod's addresses, the host's with host networking.
	PodIPs []string
	// TargetID is the container whose processes an ephemeral container sees; "" for others.
	TargetID string
	// Injected says that the container was added to the API's pod. Such a container replaces a process that it loses by itself.
	Injected bool
}

// Images keeps images on the node.
type Images interface {
	// ImagePresent returns the image's id if the runtime has it.
	ImagePresent(ctx context.Context, ref string) (id string, present bool, err error)
	// PullImage pulls with the credentials that the pod may use. Its errors wrap the image errors of package cri.
	PullImage(ctx context.Context, pod *corev1.Pod, ref string) (PulledImage, error)
}

// PulledImage is an image that was pulled.
type PulledImage struct {
	ID string
	// Size is in bytes; 0 if unknown.
	Size uint64
}

// Volumes sets up the volumes of pods.
type Volumes interface {
	// SetUp makes all volumes of the pod as it runs usable. It is idempotent and brings volumes that show the pod's
	// metadata up to date. Its error names the volume.
	SetUp(ctx context.Context, pod *corev1.Pod) error
	// Unbind ends what holds file systems of others on behalf of the pod, whose containers have ended, so that they can be
	// unmounted. It is idempotent.
	Unbind(ctx context.Context, uid types.UID) error
	// Holders returns the pods that have volumes or a directory for them.
	Holders(ctx context.Context) ([]types.UID, error)
	// TearDown removes the pod's volumes and directories. It is idempotent; an unknown UID is no error.
	TearDown(ctx context.Context, uid types.UID) error
}
