package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

// Broker holds sessions. *broker.Broker is one.
type Broker interface {
	Open(ctx context.Context, r broker.Request) (broker.Session, error)
	Close(ctx context.Context, id mount.SessionID, grace time.Duration) error
	Status(id mount.SessionID) (broker.Session, error)
	SocketDir(id mount.SessionID) string
}

// Resolver finds out what the volumes of a pod are. *sidecar.Resolver is one.
type Resolver interface {
	Resolve(ctx context.Context, pod *corev1.Pod) ([]sidecar.Mount, error)
}

// Options of a Keeper; all are required.
type Options struct {
	Resolver Resolver
	Broker   Broker
	// AgentDir is the host's directory with the agent's executable.
	AgentDir string
	// TargetDir is the mount point of a volume of a pod.
	TargetDir func(pod types.UID, volume string) string
	// StateDir keeps what pods were prepared with, one file for each; it is made.
	StateDir string
	// Recorder takes events about pods.
	Recorder record.EventRecorder
	// Wake tells the engine that something has changed for the pod. It must not block.
	Wake func(pod types.UID)
}

// Keeper keeps the sessions of pods. Its methods may be called from any goroutine.
type Keeper struct {
	options Options
	memory  memory
	// troubled has the sessions that need their volume anew.
	troubled workqueue.TypedRateLimitingInterface[mount.SessionID]

	// mu guards held.
	mu   sync.Mutex
	held map[mount.SessionID]holding
}

// holding is whose a session is.
type holding struct {
	pod    *corev1.Pod
	volume string
	// warned says that the warnings about the volume have been told.
	warned bool
}

const (
	// retryLeast and retryMost are the pauses between attempts to mend a session.
	retryLeast = time.Second
	retryMost  = 30 * time.Second
	// mendTimeout bounds one attempt.
	mendTimeout = 30 * time.Second
)

// New checks the options; errors wrap ErrOptions.
func New(o Options) (*Keeper, error) {
	if o.Resolver == nil || o.Broker == nil || o.AgentDir == "" || o.TargetDir == nil || o.StateDir == "" || o.Recorder == nil || o.Wake == nil {
		return nil, fmt.Errorf("keeper of sessions: %w", ErrOptions)
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[mount.SessionID](retryLeast, retryMost)
	return &Keeper{
		options:  o,
		memory:   memory{dir: o.StateDir},
		troubled: workqueue.NewTypedRateLimitingQueue(limiter),
		held:     map[mount.SessionID]holding{},
	}, nil
}

// Run mends sessions until ctx ends. It is to be called once.
func (k *Keeper) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, k.troubled.ShutDown)
	defer stop()
	for {
		id, shutdown := k.troubled.Get()
		if shutdown {
			return nil
		}
		k.mend(ctx, id)
		k.troubled.Done(id)
	}
}

// Prepare opens the pod's sessions and returns the pod with their sidecars, or the pod itself if it has no volume of ours. It is
// idempotent. An error about a volume is a *sidecar.Error.
func (k *Keeper) Prepare(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	mounts, err := k.mountsOf(ctx, pod)
	if err != nil || len(mounts) == 0 {
		return pod, err
	}
	prepared, err := sidecar.Inject(pod, mounts, sidecar.InjectOptions{
		AgentDir:   k.options.AgentDir,
		SessionDir: func(volume string) string { return k.options.Broker.SocketDir(sidecar.SessionID(pod.UID, volume)) },
		TargetDir:  func(volume string) string { return k.options.TargetDir(pod.UID, volume) },
	})
	if err != nil {
		return nil, err
	}
	return prepared, nil
}

// mountsOf resolves the pod's volumes and opens their sessions. If they cannot be resolved although the pod runs with them, what
// it was prepared with must do: a running pod does not depend on objects that may be gone.
func (k *Keeper) mountsOf(ctx context.Context, pod *corev1.Pod) ([]sidecar.Mount, error) {
	mounts, err := k.options.Resolver.Resolve(ctx, pod)
	if err != nil {
		if known, ok := k.recall(pod); ok {
			log.G(ctx).WithError(err).Warn("volumes cannot be resolved any more, the pod keeps those that it has")
			k.hold(pod, known)
			return known, nil
		}
		return nil, err
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	k.hold(pod, mounts)
	var group errgroup.Group
	for _, m := range mounts {
		group.Go(func() error { return k.open(ctx, pod, m) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return mounts, k.memory.write(pod.UID, mounts)
}

func (k *Keeper) open(ctx context.Context, pod *corev1.Pod, m sidecar.Mount) error {
	_, err := k.options.Broker.Open(ctx, broker.Request{
		ID:     sidecar.SessionID(pod.UID, m.Volume.Name),
		Target: k.options.TargetDir(pod.UID, m.Volume.Name),
		Volume: m.Volume,
		UID:    uint32(m.UID),
		GID:    uint32(m.GID),
	})
	if err != nil {
		return fmt.Errorf("volume %q: %w", m.Volume.Name, err)
	}
	return nil
}

// recall returns what the pod was prepared with, if all its sessions live.
func (k *Keeper) recall(pod *corev1.Pod) ([]sidecar.Mount, bool) {
	mounts, err := k.memory.read(pod.UID)
	if err != nil || len(mounts) == 0 {
		return nil, false
	}
	for _, m := range mounts {
		if _, err := k.options.Broker.Status(sidecar.SessionID(pod.UID, m.Volume.Name)); err != nil {
			return nil, false
		}
	}
	return mounts, true
}

// hold notes whose sessions these are, before they open, and tells the warnings about their volumes once.
func (k *Keeper) hold(pod *corev1.Pod, mounts []sidecar.Mount) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range mounts {
		id := sidecar.SessionID(pod.UID, m.Volume.Name)
		if !k.held[id].warned {
			for _, warning := range m.Warnings {
				k.options.Recorder.Event(pod, corev1.EventTypeWarning, "VolumeSettingIgnored", warning)
			}
		}
		k.held[id] = holding{pod: pod, volume: m.Volume.Name, warned: true}
	}
}

// Started reports whether the session of an injected sidecar is ready, and if not, why its client fails. It does not block.
func (k *Keeper) Started(pod *corev1.Pod, container string) (started bool, failure string) {
	for i := range pod.Spec.Volumes {
		name := pod.Spec.Volumes[i].Name
		if sidecar.ContainerName(name) != container {
			continue
		}
		s, err := k.options.Broker.Status(sidecar.SessionID(pod.UID, name))
		switch {
		case err != nil:
			return false, fmt.Sprintf("volume %q: %v", name, err)
		case s.Ready:
			return true, ""
		case s.Failure != nil:
			return false, fmt.Sprintf("volume %q: %v", name, s.Failure)
		}
		return false, ""
	}
	return true, ""
}

// Release closes the pod's sessions; each may take up to grace to write out what its client still has. It is idempotent and
// knows the sessions of pods that an earlier process has prepared.
func (k *Keeper) Release(ctx context.Context, pod *corev1.Pod, grace time.Duration) error {
	var group errgroup.Group
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.PersistentVolumeClaim == nil && v.Ephemeral == nil && v.CSI == nil {
			continue
		}
		id := sidecar.SessionID(pod.UID, v.Name)
		group.Go(func() error {
			k.drop(id)
			return k.options.Broker.Close(ctx, id, grace)
		})
	}
	return errors.Join(group.Wait(), k.memory.remove(pod.UID))
}

func (k *Keeper) drop(id mount.SessionID) {
	k.mu.Lock()
	delete(k.held, id)
	k.mu.Unlock()
	k.troubled.Forget(id)
}

func (k *Keeper) find(id mount.SessionID) (holding, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.held[id]
	return h, ok
}
