package csi

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

// Keeper keeps the Mount Pods of this node and counts who uses them.
type Keeper interface {
	// Acquire returns when a client serves the volume, and remembers that the target uses it.
	Acquire(ctx context.Context, r mountpod.Request) (mountpod.Share, error)
	// Release forgets the target.
	Release(ctx context.Context, target string) error
	// Find returns the share that a target uses.
	Find(target string) (mountpod.Share, bool)
	// Condition tells what is wrong with the share of a target.
	Condition(target string) (abnormal bool, message string)
}

// Sessions tells about the FUSE sessions of this node.
type Sessions interface {
	// Status returns a session, or mount.ErrNotFound.
	Status(id mount.SessionID) (broker.Session, error)
}

// Describer understands a volume as Kubernetes describes it.
type Describer interface {
	Describe(s sidecar.Source) (sidecar.Mount, error)
}

// Objects reads what a publish request does not tell. Each is read by name, once per publish at most.
type Objects interface {
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
}

// NodeOptions configure the node service.
type NodeOptions struct {
	// NodeName is the name of the Node object. Required.
	NodeName string
	// KubeletDir is the kubelet's root directory, at the same path here as for the kubelet. Nothing outside of its
	// subdirectory "pods" is ever touched. Default /var/lib/kubelet.
	KubeletDir string
	// Keeper, Sessions, Volumes and Objects do the work. Required.
	Keeper   Keeper
	Sessions Sessions
	Volumes  Describer
	Objects  Objects
	// Recorder writes events about pods. Required.
	Recorder record.EventRecorder
	// Sidecars lets pods bring sidecars of their own. nil: every volume is served by a Mount Pod.
	Sidecars *Sidecars
	// AgentPath is the agent's program, which asks mounts for their figures in a process of its own. Required.
	AgentPath string
	// MaxVolumes is how many volumes of the driver the node may have; the scheduler heeds it. 0: any number.
	MaxVolumes int64
	// Topology are labels that the kubelet puts on the Node, for StorageClasses with allowedTopologies. Default: none.
	Topology map[string]string
	// PublishTimeout is how long a publish waits for a client to serve before it says what it waits for; Kubernetes asks again.
	// Default 60 s.
	PublishTimeout time.Duration
	// StatsTimeout is how long a mount may take to tell its figures. Default 5 s.
	StatsTimeout time.Duration
	// Log receives what happens. Default: the standard logger.
	Log logrus.FieldLogger
}

// Node is the node service: it binds volumes into pods. Everything happens in NodePublishVolume, because the volumes of the
// JuiceFS CSI driver name their Secret for that call only.
type Node struct {
	spec.UnimplementedNodeServer
	options NodeOptions
	pods    podsDir
	under   operations
	seen    publications
	figures figures
	// step is called between the steps of publish and unpublish; tests stop there.
	step func(name string)
}

var _ spec.NodeServer = (*Node)(nil)

// NewNode checks the options.
func NewNode(o NodeOptions) (*Node, error) {
	switch {
	case o.NodeName == "":
		return nil, errors.New("node service needs the node's name")
	case o.Keeper == nil || o.Sessions == nil || o.Volumes == nil || o.Objects == nil || o.Recorder == nil:
		return nil, errors.New("node service needs keeper, sessions, volumes, objects and recorder")
	case o.AgentPath == "":
		return nil, errors.New("node service needs the agent's path")
	}
	setDefault(&o.KubeletDir, "/var/lib/kubelet")
	setDefault(&o.PublishTimeout, time.Minute)
	setDefault(&o.StatsTimeout, 5*time.Second)
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	if !filepath.IsAbs(o.KubeletDir) {
		return nil, errors.New("the kubelet's directory is not an absolute path")
	}
	return &Node{
		options: o,
		pods:    podsDir{kubelet: filepath.Clean(o.KubeletDir)},
		figures: figures{program: o.AgentPath, timeout: o.StatsTimeout},
		step:    func(string) {},
	}, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// NodeGetCapabilities implements the call of that name.
func (n *Node) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	response := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range []spec.NodeServiceCapability_RPC_Type{
		spec.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		spec.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &spec.NodeServiceCapability{
			Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}},
		})
	}
	return response, nil
}

// NodeGetInfo implements the call of that name.
func (n *Node) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	response := &spec.NodeGetInfoResponse{NodeId: n.options.NodeName, MaxVolumesPerNode: n.options.MaxVolumes}
	if len(n.options.Topology) > 0 {
		response.AccessibleTopology = &spec.Topology{Segments: n.options.Topology}
	}
	return response, nil
}
