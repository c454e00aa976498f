package provider

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/probe"
)

// Options are what an Engine works with.
type Options struct {
	// NodeName is the node whose pods it runs. Required.
	NodeName string
	// Client writes the status of pods and deletes them. Required.
	Client corev1client.PodsGetter
	// Recorder records events about pods. Required.
	Recorder record.EventRecorder
	// Runtime runs containers, Images keeps images, Volumes sets up volumes. Required.
	Runtime Runtime
	Images  Images
	Volumes Volumes
	// Preparer turns the API's pod into the one that runs. Nil runs pods as they are.
	Preparer Preparer
	// HostIPs returns the node's addresses, the primary one first. Nil reports none.
	HostIPs func() []string
	// Allocatable returns what the node can allocate; a pod that does not fit fails. Nil takes every pod that the scheduler sends.
	Allocatable func() corev1.ResourceList
	// ParallelPulls is how many images are pulled at a time. Default 5.
	ParallelPulls int
	// ParallelSandboxes is how many sandboxes are created at a time; more only make each of them slower. Default 8.
	ParallelSandboxes int
	// SidecarGrace is how long an injected sidecar may take to end, however short the pod's own grace period is: it may still
	// hold data of the application. Default 30 s.
	SidecarGrace time.Duration
	// StuckAfter is how long after SIGKILL containers that do not end keep their file systems. Default 20 s.
	StuckAfter time.Duration
	// Sweep is the pause between two comparisons of all that the runtime has with all pods, which finds what events have missed.
	// Default 15 s.
	Sweep time.Duration
	// Linger is how long dead containers and sandboxes of a pod that is gone stay: removing them competes with starting others,
	// and nobody waits for it. Default 3 s.
	Linger time.Duration
	// OnRunning is told when a pod runs for the first time, and how long after the engine has learnt of it. It must not block.
	// Nil tells nobody.
	OnRunning func(pod *corev1.Pod, after time.Duration)
}

// Engine runs the pods of a node; see the package's documentation.
type Engine struct {
	node         string
	client       corev1client.PodsGetter
	recorder     record.EventRecorder
	runtime      Runtime
	volumes      Volumes
	preparer     Preparer
	hostIPs      func() []string
	allocatable  func() corev1.ResourceList
	sidecarGrace time.Duration
	sweepPause   time.Duration
	linger       time.Duration
	stuckAfter   time.Duration
	onRunning    func(*corev1.Pod, time.Duration)

	images       *imageCache
	prober       *probe.Prober
	writer       *statusWriter
	sandboxSlots chan struct{}
	removalSlots chan struct{}
	// look makes the sweep come at once.
	look chan struct{}
	// suspects has the pods of which the last sweep found nothing but volumes. Only the sweep uses it.
	suspects map[types.UID]bool

	// mu guards the fields below.
	mu sync.Mutex
	// actors by UID. An actor removes itself when its pod is gone.
	actors map[types.UID]*actor
	// names has the UID of the newest pod of each namespace/name.
	names map[string]types.UID
	// launch starts an actor; nil while the engine does not run.
	launch func(*actor)
	// departed has the UIDs of pods that the API server has no more, and since when: a version of such a pod that comes late
	// must not bring it back.
	departed map[types.UID]time.Time
	// seen has the UIDs that the runtime had when the engine started; nil before that.
	seen map[types.UID]bool
}

// NewEngine returns an engine that does nothing before Run.
func NewEngine(o Options) (*Engine, error) {
	if o.NodeName == "" || o.Client == nil || o.Recorder == nil || o.Runtime == nil || o.Images == nil || o.Volumes == nil {
		return nil, errors.New("pod engine needs a node name, a client, a recorder, a runtime, images and volumes")
	}
	e := &Engine{
		node: o.NodeName, client: o.Client, recorder: o.Recorder, runtime: o.Runtime, volumes: o.Volumes, preparer: o.Preparer,
		hostIPs: o.HostIPs, sidecarGrace: or(o.SidecarGrace, 30*time.Second), sweepPause: or(o.Sweep, 15*time.Second),
		onRunning: o.OnRunning, linger: or(o.Linger, 3*time.Second), stuckAfter: or(o.StuckAfter, 20*time.Second),
		images:       newImageCache(o.Images, or(o.ParallelPulls, 5)),
		prober:       probe.New(execProbe(o.Runtime)),
		writer:       newStatusWriter(o.Client),
		sandboxSlots: make(chan struct{}, or(o.ParallelSandboxes, 8)),
		removalSlots: make(chan struct{}, removalsAtOnce),
		look:         make(chan struct{}, 1),
		actors:       make(map[types.UID]*actor),
		names:        make(map[string]types.UID),
		departed:     make(map[types.UID]time.Time),
	}
	if e.preparer == nil {
		e.preparer = Unprepared{}
	}
	if e.allocatable = o.Allocatable; e.allocatable == nil {
		e.allocatable = func() corev1.ResourceList { return nil }
	}
	if e.hostIPs == nil {
		e.hostIPs = func() []string { return nil }
	}
	return e, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Run runs pods until ctx ends and then returns with everything still running that ran. It begins as soon as the runtime tells
// what it has.
func (e *Engine) Run(ctx context.Context) error {
	pods, err := e.firstLook(ctx)
	if err != nil {
		return nil
	}
	var all sync.WaitGroup
	defer all.Wait()
	e.mu.Lock()
	e.seen = make(map[types.UID]bool, len(pods))
	for _, p := range pods {
		e.seen[p.UID] = true
	}
	e.launch = func(a *actor) {
		all.Go(func() {
			a.run(ctx)
			e.ended(a)
		})
	}
	for _, a := range e.actors {
		// What the runtime has was not known when the actor was created.
		a.known, a.stale = !e.seen[a.uid], e.seen[a.uid]
		e.launch(a)
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.launch = nil
		e.mu.Unlock()
	}()
	all.Go(func() { e.writer.run(ctx) })
	all.Go(func() { e.follow(ctx) })
	all.Go(func() { e.sweeps(ctx) })
	<-ctx.Done()
	return nil
}

// firstLook asks the runtime what it has until it answers or ctx ends.
func (e *Engine) firstLook(ctx context.Context) ([]cri.Pod, error) {
	var pause backoff
	for {
		pods, err := e.runtime.Pods(ctx)
		if err == nil || ctx.Err() != nil {
			return pods, ctx.Err()
		}
		log.G(ctx).WithError(err).Warn("waiting for the container runtime")
		pause.failed(time.Now(), retryPauses)
		timer := time.NewTimer(pause.pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Update takes note of a pod as the API server has it.
func (e *Engine) Update(pod *corev1.Pod) {
	if pod.Spec.NodeName != e.node {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, departed := e.departed[pod.UID]; departed {
		return
	}
	if a := e.actors[pod.UID]; a != nil {
		a.box.post(func(m *mail) {
			if m.pod == nil {
				m.pod = pod
			} else {
				m.pod = newer(m.pod, pod)
			}
		})
		return
	}
	if e.isNewest(pod) {
		e.names[nameOf(pod)] = pod.UID
	}
	a := newActor(e, pod, false, e.seen != nil && !e.seen[pod.UID])
	a.stop.verdict = e.admit(pod)
	e.add(a)
}

// admit decides about a pod that the node has not run before: one that has been told when it started has been admitted already.
// Callers hold mu, so that two pods cannot both get what is enough for one.
func (e *Engine) admit(pod *corev1.Pod) *verdict {
	if pod.Status.StartTime != nil || pod.DeletionTimestamp != nil || isFinal(pod.Status.Phase) {
		return nil
	}
	v := admit(pod, e.othersLocked(pod.UID), e.allocatable())
	if v != nil {
		e.recorder.Eventf(podReference(pod, ""), corev1.EventTypeWarning, v.reason, "%s", v.message)
	}
	return v
}

// others returns the pods that the node runs, but for one.
func (e *Engine) others(but types.UID) []*corev1.Pod {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.othersLocked(but)
}

// othersLocked is others for callers that hold mu.
func (e *Engine) othersLocked(but types.UID) []*corev1.Pod {
	others := make([]*corev1.Pod, 0, len(e.actors))
	for uid, a := range e.actors {
		if v := a.shown.Load(); uid != but && !v.Absent && !isFinal(v.Status.Phase) {
			others = append(others, v.Granted)
		}
	}
	return others
}

// isNewest reports whether no pod of the same name was created later. Callers hold mu.
func (e *Engine) isNewest(pod *corev1.Pod) bool {
	a := e.actors[e.names[nameOf(pod)]]
	return a == nil || !pod.CreationTimestamp.Before(&a.shown.Load().Pod.CreationTimestamp)
}

// add registers an actor and starts it if the engine runs. Callers hold mu.
func (e *Engine) add(a *actor) {
	e.actors[a.uid] = a
	if e.launch != nil {
		e.launch(a)
	}
}

// Gone takes note that the API server has no pod of that UID any more. Its containers are ended.
func (e *Engine) Gone(uid types.UID) {
	e.mu.Lock()
	e.departed[uid] = time.Now()
	e.mu.Unlock()
	e.tell(uid, func(m *mail) { m.absent = true })
}

// Wake makes the pod try at once what it waits to try again, because what it needs may have changed.
func (e *Engine) Wake(uid types.UID) {
	e.tell(uid, func(m *mail) { m.wake = true })
}

// Again has a running pod prepared anew although it has not changed: its Preparer wants other sidecars now.
func (e *Engine) Again(uid types.UID) {
	e.tell(uid, func(m *mail) { m.again = true })
}

// Waiting says why a container of the pod does not run, "" if it runs or nothing is known.
func (e *Engine) Waiting(uid types.UID, container string) string {
	v, err := e.View(uid)
	if err != nil {
		return ""
	}
	w, ok := v.Waiting[container]
	if !ok {
		return ""
	}
	return w.Reason + ": " + w.Message
}

// Evict ends a pod and makes it Failed with the reason and the message. It reports whether the engine has the pod.
func (e *Engine) Evict(uid types.UID, reason, message string) bool {
	v := &verdict{reason: reason, message: message, condition: &corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message,
	}}
	return e.tell(uid, func(m *mail) { m.evict = v })
}

func (e *Engine) tell(uid types.UID, change func(*mail)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.actors[uid]
	if a != nil {
		a.box.post(change)
	}
	return a != nil
}

// View returns the pod of that UID.
func (e *Engine) View(uid types.UID) (*PodView, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.actors[uid]
	if a == nil {
		return nil, ErrUnknownPod
	}
	return a.shown.Load(), nil
}

// ViewByName returns the newest pod of that name.
func (e *Engine) ViewByName(namespace, name string) (*PodView, error) {
	e.mu.Lock()
	uid := e.names[namespace+"/"+name]
	e.mu.Unlock()
	return e.View(uid)
}

// Views returns all pods, in no order.
func (e *Engine) Views() []*PodView {
	e.mu.Lock()
	defer e.mu.Unlock()
	views := make([]*PodView, 0, len(e.actors))
	for _, a := range e.actors {
		views = append(views, a.shown.Load())
	}
	return views
}

// ended forgets an actor whose pod is gone.
func (e *Engine) ended(a *actor) {
	if a.stage != gone {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.actors, a.uid)
	delete(e.seen, a.uid)
	if name := nameOf(a.pod); e.names[name] == a.uid {
		delete(e.names, name)
	}
	e.writer.forget(a.uid)
	log.L.WithField("uid", a.uid).WithField("pod", a.pod.Name).WithField("namespace", a.pod.Namespace).Debug("pod is gone")
}

func nameOf(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
