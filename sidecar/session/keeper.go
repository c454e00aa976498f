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
	Upgrade(ctx context.Context, id mount.SessionID, next broker.Successor) (time.Duration, error)
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
	// Again has the engine prepare the pod anew, as after a change of it. It must not block.
	Again func(pod types.UID)
	// Waiting says why a container of the pod does not run, "" if it runs or nothing is known. Nil knows nothing.
	Waiting func(pod types.UID, container string) string
	// UpgradeTimeout is how long the client that shall take a volume over may take to get ready, its image's pull included. Default 5 min.
	UpgradeTimeout time.Duration
	// Poll is the pause between two looks at the PersistentVolumes of running pods, whose annotations may ask for other clients. Default 1 min.
	Poll time.Duration
}

// Keeper keeps the sessions of pods. Its methods may be called from any goroutine.
type Keeper struct {
	options Options
	memory  *memory
	alone   alone
	// troubled has the sessions that need their volume anew.
	troubled workqueue.TypedRateLimitingInterface[mount.SessionID]
	// planned wakes who hands sessions over.
	planned chan struct{}

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
	// generation is that of the sidecar that has the session.
	generation int
	// next is the client that shall take over, with its volume's secret, and upgrading says that this is under way.
	next      *sidecar.Mount
	upgrading bool
	// lost: the session was lost while the pod ran, and with it the application's open files.
	lost    bool
	outcome *outcome
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
	if o.Resolver == nil || o.Broker == nil || o.AgentDir == "" || o.TargetDir == nil || o.StateDir == "" || o.Recorder == nil || o.Wake == nil || o.Again == nil {
		return nil, fmt.Errorf("keeper of sessions: %w", ErrOptions)
	}
	if o.Waiting == nil {
		o.Waiting = func(types.UID, string) string { return "" }
	}
	if o.UpgradeTimeout == 0 {
		o.UpgradeTimeout = 5 * time.Minute
	}
	if o.Poll == 0 {
		o.Poll = time.Minute
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[mount.SessionID](retryLeast, retryMost)
	return &Keeper{
		options:  o,
		memory:   &memory{dir: o.StateDir},
		planned:  make(chan struct{}, 1),
		troubled: workqueue.NewTypedRateLimitingQueue(limiter),
		held:     map[mount.SessionID]holding{},
	}, nil
}

// Run mends sessions and replaces clients until ctx ends. It is to be called once.
func (k *Keeper) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { k.upgradeAll(ctx) })
	running.Go(func() { k.watchWishes(ctx) })
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
// idempotent. An error about a volume is a *sidecar.Error. If the pod or a PersistentVolume asks for another client, its sidecar is added
// beside the present one, and the session is handed over when it is ready.
func (k *Keeper) Prepare(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	all, err := k.volumesOf(ctx, pod)
	if err != nil || len(all) == 0 {
		return pod, err
	}
	options := sidecar.InjectOptions{
		AgentDir:   k.options.AgentDir,
		SessionDir: func(volume string) string { return k.options.Broker.SocketDir(sidecar.SessionID(pod.UID, volume)) },
		TargetDir:  func(volume string) string { return k.options.TargetDir(pod.UID, volume) },
	}
	mounts := make([]sidecar.Mount, len(all))
	for i := range all {
		mounts[i] = all[i].Mount
	}
	out, err := sidecar.Inject(pod, mounts, options)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Next == nil {
			continue
		}
		if err := sidecar.InjectNext(out, *all[i].Next, options); err != nil {
			k.conclude(pod, all[i], "", err)
			continue
		}
		k.begin(pod, *all[i].Next)
	}
	return out, nil
}

// volumesOf resolves the pod's volumes and opens their sessions. If they cannot be resolved although the pod runs with them, what
// it was prepared with must do: a running pod does not depend on objects that may be gone.
func (k *Keeper) volumesOf(ctx context.Context, pod *corev1.Pod) ([]prepared, error) {
	known, err := k.memory.read(pod.UID)
	if err != nil {
		log.G(ctx).WithError(err).Warn("what the pod was prepared with is unknown")
	}
	mounts, err := k.options.Resolver.Resolve(ctx, pod)
	if err != nil {
		if !k.live(pod, known) {
			return nil, err
		}
		log.G(ctx).WithError(err).Warn("volumes cannot be resolved any more, the pod keeps those that it has")
		k.cannot(pod, known, err)
		k.hold(pod, known)
		return known, nil
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	if err := k.alone.reserve(k.memory, pod, mounts); err != nil {
		return nil, err
	}
	all := make([]prepared, len(mounts))
	for i, m := range mounts {
		all[i] = k.merge(pod, m, find(known, m.Volume.Name))
	}
	k.hold(pod, all)
	var group errgroup.Group
	for _, p := range all {
		group.Go(func() error { return k.open(ctx, pod, p.Mount) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return all, k.memory.change(pod.UID, func([]prepared) []prepared { return all })
}

// merge decides what serves a volume: a client that has served stays as it is until it is replaced on purpose.
func (k *Keeper) merge(pod *corev1.Pod, fresh sidecar.Mount, known *prepared) prepared {
	if known == nil {
		return prepared{Mount: fresh, Asked: pod.Annotations[UpgradeAnnotation]}
	}
	p := *known
	status, err := k.options.Broker.Status(sidecar.SessionID(pod.UID, fresh.Volume.Name))
	if err != nil || status.State == mount.Mounted || status.State == mount.Requested {
		// Nobody serves, so nobody is disturbed; the sidecar that is there stays the one that may.
		fresh.Generation = p.Generation
		p.Mount, p.Next = fresh, nil
		return p
	}
	secret := fresh.Volume.Secret
	switch {
	case p.Next != nil:
		next := *p.Next
		next.Volume.Secret = secret
		p.Next = &next
	case k.wanted(pod, fresh, p):
		k.plan(pod, fresh, &p)
	}
	p.Volume.Secret, p.Warnings = secret, fresh.Warnings
	return p
}

func find(all []prepared, volume string) *prepared {
	for i := range all {
		if all[i].Volume.Name == volume {
			return &all[i]
		}
	}
	return nil
}

func (k *Keeper) open(ctx context.Context, pod *corev1.Pod, m sidecar.Mount) error {
	_, err := k.options.Broker.Open(ctx, broker.Request{
		ID:         sidecar.SessionID(pod.UID, m.Volume.Name),
		Target:     k.options.TargetDir(pod.UID, m.Volume.Name),
		Volume:     m.Volume,
		UID:        uint32(m.UID),
		GID:        uint32(m.GID),
		Generation: m.Generation,
	})
	if err != nil {
		return fmt.Errorf("volume %q: %w", m.Volume.Name, err)
	}
	return nil
}

// live tells whether all sessions of what the pod was prepared with are there.
func (k *Keeper) live(pod *corev1.Pod, known []prepared) bool {
	for _, p := range known {
		if _, err := k.options.Broker.Status(sidecar.SessionID(pod.UID, p.Volume.Name)); err != nil {
			return false
		}
	}
	return len(known) > 0
}

// hold notes whose sessions these are, before they open, and tells the warnings about their volumes once.
func (k *Keeper) hold(pod *corev1.Pod, all []prepared) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range all {
		id := sidecar.SessionID(pod.UID, p.Volume.Name)
		h := k.held[id]
		if !h.warned {
			for _, warning := range p.Warnings {
				k.options.Recorder.Event(pod, corev1.EventTypeWarning, "VolumeSettingIgnored", warning)
			}
		}
		h.pod, h.volume, h.warned, h.generation, h.outcome = pod, p.Volume.Name, true, p.Generation, p.Outcome
		k.held[id] = h
	}
}

// Started reports whether the session of an injected sidecar is ready, and if not, why its client fails. Nobody waits for a sidecar that
// shall take over. It does not block.
func (k *Keeper) Started(pod *corev1.Pod, container string) (started bool, failure string) {
	name, id, ok := k.servedBy(pod, container)
	if !ok {
		return true, ""
	}
	s, err := k.options.Broker.Status(id)
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

// Owes reports whether the session of an injected sidecar has been served and has nobody who serves it now: requests may wait, and what its last client
// has not stored lies in the session's memory. It does not block.
func (k *Keeper) Owes(pod *corev1.Pod, container string) bool {
	_, id, ok := k.servedBy(pod, container)
	if !ok {
		return false
	}
	s, err := k.options.Broker.Status(id)
	return err == nil && s.State == mount.Orphaned
}

// servedBy finds the volume that an injected sidecar serves.
func (k *Keeper) servedBy(pod *corev1.Pod, container string) (volume string, id mount.SessionID, ok bool) {
	for i := range pod.Spec.Volumes {
		volume = pod.Spec.Volumes[i].Name
		id = sidecar.SessionID(pod.UID, volume)
		if h, _ := k.find(id); sidecar.GenerationName(volume, h.generation) == container {
			return volume, id, true
		}
	}
	return "", "", false
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
	if err := errors.Join(group.Wait(), k.memory.remove(pod.UID)); err != nil {
		return err
	}
	k.alone.release(pod.UID)
	return nil
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
