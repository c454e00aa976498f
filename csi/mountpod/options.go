package mountpod

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/mount/mountpoint"
)

// Broker holds sessions. *broker.Broker is one.
type Broker interface {
	Open(ctx context.Context, r broker.Request) (broker.Session, error)
	Close(ctx context.Context, id mount.SessionID, grace time.Duration) error
	Status(id mount.SessionID) (broker.Session, error)
	SocketDir(id mount.SessionID) string
	Upgrade(ctx context.Context, id mount.SessionID, next broker.Successor) (time.Duration, error)
	Retain(ctx context.Context, id mount.SessionID, d time.Duration) error
}

// Pods are the Mount Pods of this node at the API server. Errors are those of the API machinery. Cluster is the real one.
type Pods interface {
	Create(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error)
	Get(ctx context.Context, name string) (*corev1.Pod, error)
	// Delete deletes the pod if it still has this uid. A pod that is not there is no error.
	Delete(ctx context.Context, name string, uid types.UID, grace time.Duration) error
	// Watch tells h of every Mount Pod of this node, those that exist first, until ctx ends. It returns an error only if it cannot watch.
	Watch(ctx context.Context, h Handler) error
}

// Handler takes what a watch sees, one call at a time. It does not block.
type Handler interface {
	// Changed tells of a pod that is there, in its present state.
	Changed(pod *corev1.Pod)
	// Gone tells of a pod that is there no more.
	Gone(pod *corev1.Pod)
	// Synced says once that all pods that existed at the start have been told.
	Synced()
}

// Options of a Keeper.
type Options struct {
	// Broker makes and holds the sessions. Its OnEvent must be the keeper's Notify. Required.
	Broker Broker
	// Pods are the Mount Pods at the API server. Required.
	Pods Pods
	// Driver is the CSI driver's name; drivers of one node know their Mount Pods apart by it. Required.
	Driver string
	// NodeName is where the Mount Pods run. Required.
	NodeName string
	// NodeUID makes the Node the owner of its Mount Pods, see the package's comment. "": they have no owner, survive their Node in the API, and
	// kubectl drain refuses them without --force.
	NodeUID types.UID
	// Namespace is the Mount Pods'. Required.
	Namespace string
	// StateDir keeps shares and references over a restart of this process; it is made. It must survive a reboot no more than the mounts do.
	// Required.
	StateDir string
	// MountsDir holds the mount points of the sessions, in a tree that is shared with the host. Required.
	MountsDir string
	// AgentDir is the host's directory with the agent's executable. Required.
	AgentDir string
	// PriorityClass of the Mount Pods. Default "system-node-critical": they end after the applications at a node shutdown, and the kubelet makes
	// room for them by preempting pods of lower priority. "none": no class.
	PriorityClass string
	// ServiceAccount of Mount Pods whose volume names none; they get no token of it. Default: that of the namespace.
	ServiceAccount string
	// Tolerations of the Mount Pods. Default: all, since their users are on the node already.
	Tolerations []corev1.Toleration
	// ImagePullSecrets of the Mount Pods.
	ImagePullSecrets []corev1.LocalObjectReference
	// ImagePullPolicy of the Mount Pods. Default IfNotPresent.
	ImagePullPolicy corev1.PullPolicy
	// HostNetwork runs the clients in the node's network. Default false.
	HostNetwork bool
	// Grace is how long the client of a share that nobody uses any more may flush. Default 30 s.
	Grace time.Duration
	// Relief is how long a Mount Pod that is deleted while it is used may serve on until another one has taken over. Default 30 s. A Mount Pod's grace period is the
	// sum of Relief and Grace.
	Relief time.Duration
	// Attempt is how long one attempt to put a share right may take, Grace or Relief not counted. Default 30 s.
	Attempt time.Duration
	// Patience is how long a failure may last until Acquire returns it although its deadline has not come. Default 15 s: kubectl describe then
	// says early what is wrong, and the reference is kept for the next attempt.
	Patience time.Duration
	// Rotation is the pause between two attempts to hand a changed Secret to a running client. Default 5 min.
	Rotation time.Duration
	// Linger is how long a reference is kept whose target has not become a mount point: between a failed publish and its repetition, which the
	// kubelet puts off by up to two minutes. Default 5 min.
	Linger time.Duration
	// Mounted tells whether something is mounted at a target, without asking the file system there. Default: a look at the mount table.
	Mounted func(target string) (bool, error)
	// BootID names the present boot of the host. Default /proc/sys/kernel/random/boot_id.
	BootID string
	// Recorder takes events about Mount Pods and the pods that use them. Required.
	Recorder record.EventRecorder
	// Log receives what happens. Default logrus.StandardLogger().
	Log logrus.FieldLogger
}

func (o *Options) setDefaults() error {
	if o.Broker == nil || o.Pods == nil || o.Recorder == nil {
		return fmt.Errorf("keeper of mount pods needs a broker, pods and a recorder: %w", ErrOptions)
	}
	for name, value := range map[string]string{
		"driver": o.Driver, "node name": o.NodeName, "namespace": o.Namespace,
		"state directory": o.StateDir, "mounts directory": o.MountsDir, "agent directory": o.AgentDir,
	} {
		if value == "" {
			return fmt.Errorf("keeper of mount pods needs a %s: %w", name, ErrOptions)
		}
	}
	o.MountsDir = filepath.Clean(o.MountsDir)
	switch o.PriorityClass {
	case "":
		o.PriorityClass = "system-node-critical"
	case "none":
		o.PriorityClass = ""
	}
	if o.Tolerations == nil {
		o.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	if o.ImagePullPolicy == "" {
		o.ImagePullPolicy = corev1.PullIfNotPresent
	}
	setDefault(&o.Grace, 30*time.Second)
	setDefault(&o.Relief, 30*time.Second)
	setDefault(&o.Attempt, attempt)
	setDefault(&o.Patience, 15*time.Second)
	setDefault(&o.Rotation, 5*time.Minute)
	setDefault(&o.Linger, 5*time.Minute)
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	if o.Mounted == nil {
		o.Mounted = mounted
	}
	return nil
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// mounted looks at the mount table; whatever is mounted there may be dead.
func mounted(target string) (bool, error) {
	entries, err := mountpoint.At(target)
	return len(entries) > 0, err
}
