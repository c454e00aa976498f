package host

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/cri/cgroup"
	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/volume"
)

var (
	_ provider.Runtime = (*Host)(nil)
	_ provider.Images  = (*Host)(nil)
	_ provider.Volumes = (*Host)(nil)
)

// Options are what a Host is made of.
type Options struct {
	// Runtime runs containers. Required.
	Runtime *cri.Runtime
	// Volumes makes volumes. Required.
	Volumes *volume.Manager
	// Objects reads the Secrets and ConfigMaps of environments and the pull secrets. Required.
	Objects env.Objects
	// Recorder records events about name resolution. Required.
	Recorder record.EventRecorder
	// Root is the directory that holds "pods", the same as that of Volumes. Required.
	Root string
	// LogDir is the directory of the pods' logs. Default "/var/log/pods".
	LogDir string
	// Services lists Services for the environment. Nil gives containers no service variables.
	Services corev1listers.ServiceLister
	// Cgroups makes the control groups of pods. Nil leaves that to the runtime.
	Cgroups *cgroup.Manager
	// DNS is the node's name resolution.
	DNS cri.DNS
	// Machine describes the hardware and the kernel.
	Machine cri.Host
	// NodeHosts returns the node's own hosts file, for pods with host networking. Nil gives them an empty one.
	NodeHosts func() ([]byte, error)
	// HostIPs returns the node's addresses, the primary one first. Nil reports none.
	HostIPs func() []string
	// Allocatable is what the node can allocate; nil means nothing is known.
	Allocatable func() corev1.ResourceList
	// RuntimeHandler returns the handler of a pod with a runtimeClassName. Nil refuses such pods.
	RuntimeHandler func(ctx context.Context, class string) (string, error)
	// SeccompRoot is the directory of the Localhost seccomp profiles. Default "/var/lib/kubelet/seccomp".
	SeccompRoot string
	// SeccompDefault applies the runtime's profile where a pod asks for none. Default false, as of the kubelet.
	SeccompDefault bool
}

// Host is the machine. Its methods may be called concurrently.
type Host struct {
	o Options

	// mu guards the fields below.
	mu sync.Mutex
	// volumes has what SetUp returned, by pod and name.
	volumes map[types.UID]map[string]volume.Mount
	// images has what the runtime says about images, by id; an image of an id never changes.
	images map[string]cri.Image
	// messages has the termination messages of dead containers, by id; they are read once, because the files go with the
	// volumes of a pod and the containers stay.
	messages map[string]string
}

// New returns a Host; nothing is touched before it is used.
func New(o Options) (*Host, error) {
	if o.Runtime == nil || o.Volumes == nil || o.Objects == nil || o.Recorder == nil || !filepath.IsAbs(o.Root) {
		return nil, errors.New("host needs a runtime, volumes, objects, a recorder and an absolute root directory")
	}
	if o.LogDir == "" {
		o.LogDir = "/var/log/pods"
	}
	if o.SeccompRoot == "" {
		o.SeccompRoot = "/var/lib/kubelet/seccomp"
	}
	if o.HostIPs == nil {
		o.HostIPs = func() []string { return nil }
	}
	if o.NodeHosts == nil {
		o.NodeHosts = func() ([]byte, error) { return nil, nil }
	}
	if o.Allocatable == nil {
		o.Allocatable = func() corev1.ResourceList { return nil }
	}
	return &Host{
		o: o, volumes: make(map[types.UID]map[string]volume.Mount), images: make(map[string]cri.Image),
		messages: make(map[string]string),
	}, nil
}

// Pods implements provider.States.
func (h *Host) Pods(ctx context.Context) ([]cri.Pod, error) { return h.o.Runtime.Pods(ctx) }

// Pod implements provider.States. Dead containers bear the message that they have left.
func (h *Host) Pod(ctx context.Context, uid types.UID) (cri.Pod, error) {
	pod, err := h.o.Runtime.Pod(ctx, uid)
	if err != nil {
		return pod, err
	}
	for i := range pod.Containers {
		if c := &pod.Containers[i]; c.State == cri.Exited {
			c.Message = h.message(ctx, *c)
		}
	}
	return pod, nil
}

// Events implements provider.States.
func (h *Host) Events(ctx context.Context) (<-chan cri.Event, error) { return h.o.Runtime.Events(ctx) }

// ContainerHash implements provider.States.
func (h *Host) ContainerHash(c *corev1.Container) string { return cri.HashContainer(c) }

// StartContainer implements provider.Containers.
func (h *Host) StartContainer(ctx context.Context, id string) error {
	return h.o.Runtime.StartContainer(ctx, id)
}

// StopContainer implements provider.Containers.
func (h *Host) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return h.o.Runtime.StopContainer(ctx, id, grace)
}

// ExecSync implements provider.Containers. The output is what the command wrote to both streams.
func (h *Host) ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) ([]byte, int32, error) {
	r, err := h.o.Runtime.ExecSync(ctx, id, command, timeout)
	if err != nil {
		return nil, 0, err
	}
	return append(r.Stdout, r.Stderr...), int32(r.ExitCode), nil
}

// podDir is the directory of a pod's files.
func (h *Host) podDir(uid types.UID) string { return filepath.Join(h.o.Root, "pods", string(uid)) }
