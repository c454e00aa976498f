package provider

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/cri"
)

// stage is where a pod is in its life; see the package's documentation.
type stage int

const (
	active stage = iota
	stopping
	cleaning
	finished
	gone
)

const (
	// stateTimeout bounds a question to the runtime.
	stateTimeout = 30 * time.Second
	// maxAge bounds how long an actor goes without looking, whatever it waits for.
	maxAge = time.Minute
)

// actor owns one pod. Its goroutine alone uses the fields below the mailbox.
type actor struct {
	e   *Engine
	uid types.UID
	box *mailbox
	// shown is what others may see of the pod.
	shown atomic.Pointer[PodView]

	// pod is the API's pod as last seen; absent says that the API server has it no more.
	pod    *corev1.Pod
	absent bool
	stage  stage
	alarm  alarm
	events *podEvents

	// state is what the runtime has, once it is known; stale asks for it anew.
	state cri.Pod
	known bool
	stale bool
	// stateFailures counts failed questions.
	stateFailures backoff

	// ops are the operations under way, by key; wg counts them.
	ops map[string]*operation
	wg  sync.WaitGroup

	// running is the pod as it runs, nil before it has been prepared; prepared is the API's pod that it was made from.
	running  *corev1.Pod
	prepared *corev1.Pod
	// again says that the Preparer wants to be asked once more.
	again bool
	// mounted says that the volumes have been set up; mountedOf is the pod that they were last set up for.
	mounted   bool
	mountedOf *corev1.Pod
	resizing  resizing
	// retries are the back-offs of preparation, volumes, sandbox, stopping, cleaning and deleting, by name.
	retries map[string]*backoff
	// message explains why no container has been created yet, sidecarFailure why an injected sidecar does not work yet.
	message        string
	sidecarFailure string

	// containers holds what is remembered of containers, by name, verdicts what probes have said, by container id.
	containers map[string]*containerMemory
	verdicts   map[string]*verdicts
	// turn is closed when the container that was started last has been, hook included.
	turn chan struct{}

	stop stop

	// status is the last status computed, seq its number, confirmed the last number that the API server has.
	status    *corev1.PodStatus
	seq       uint64
	confirmed uint64
	// compared is the version of the pod that the status was last compared with.
	compared *corev1.Pod
	// deleted says that the API object has been deleted on our side.
	deleted bool
	// purged says that what the runtime had and the logs have been removed.
	purged bool
	// ended is when the pod was gone from the API with nothing of it running.
	ended time.Time
	// born is when the actor was created.
	born time.Time
}

// containerMemory is what is remembered of a container of a name beyond what the runtime knows.
type containerMemory struct {
	crash   crashBackoff
	pull    backoff
	failure backoff
	// image is the id of the image for its next start, "" if the image has not been looked at.
	image string
	// waiting says why the container does not run, nil if nothing is known.
	waiting *corev1.ContainerStateWaiting
	// hooked says that it is being started and has a postStart hook, which has not ended.
	hooked bool
}

// newActor returns the actor of a pod. unknown says that the runtime cannot have anything of it, so it need not be asked.
func newActor(e *Engine, pod *corev1.Pod, absent, unknown bool) *actor {
	a := &actor{
		e: e, uid: pod.UID, box: newMailbox(), pod: pod, absent: absent,
		state: cri.Pod{UID: pod.UID}, known: unknown, stale: !unknown, born: time.Now(),
		events:     newPodEvents(e.recorder),
		ops:        make(map[string]*operation),
		retries:    make(map[string]*backoff),
		containers: make(map[string]*containerMemory),
		verdicts:   make(map[string]*verdicts),
	}
	a.show()
	a.box.ready <- struct{}{}
	return a
}

// run lives until the pod is gone or ctx ends. Ending ctx leaves the pod's containers as they are.
func (a *actor) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	ctx = log.WithLogger(ctx, log.G(ctx).WithFields(log.Fields{"pod": a.pod.Name, "namespace": a.pod.Namespace, "uid": a.uid}))
	timer := time.NewTimer(maxAge)
	defer func() {
		timer.Stop()
		cancel()
		a.wg.Wait()
		for _, v := range a.verdicts {
			v.wait()
		}
	}()
	for a.stage != gone {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.box.ready:
		}
		a.read(a.box.take())
		a.pass(ctx)
		timer.Reset(a.pause())
	}
}

// pause returns how long to sleep unless mail comes.
func (a *actor) pause() time.Duration {
	if a.alarm.at.IsZero() {
		return maxAge
	}
	return min(max(time.Until(a.alarm.at), 0), maxAge)
}

// read takes note of the mail.
func (a *actor) read(m mail) {
	if m.pod != nil {
		a.pod = newer(a.pod, m.pod)
	}
	a.absent = a.absent || m.absent
	a.stale = a.stale || m.dirty
	a.again = a.again || m.again
	if m.wake {
		clear(a.retries)
		for _, c := range a.containers {
			c.failure = backoff{}
		}
	}
	if m.evict != nil && a.stop.verdict == nil && a.stage == active {
		a.stop.verdict = m.evict
	}
	for _, apply := range m.results {
		apply()
	}
}

// pass looks at the pod once and does what is due. A stage that ends hands over to the next at once.
func (a *actor) pass(ctx context.Context) {
	a.alarm = alarm{}
	a.gather(ctx)
	a.followProbes(ctx)
	for before := stage(-1); before != a.stage; {
		before = a.stage
		switch a.stage {
		case active:
			a.keep(ctx)
		case stopping:
			a.stopPass(ctx)
		case cleaning:
			a.cleanPass(ctx)
		case finished:
			a.finishPass(ctx)
		}
	}
	a.publish()
}

// gather brings the runtime's state up to date.
func (a *actor) gather(ctx context.Context) {
	if !a.stale || a.stateFailures.waiting(time.Now()) {
		if a.stale {
			a.alarm.set(a.stateFailures.until())
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	state, err := a.e.runtime.Pod(ctx, a.uid)
	if err != nil {
		if ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("state of pod unknown, will retry")
		}
		a.stateFailures.failed(time.Now(), retryPauses)
		a.alarm.set(a.stateFailures.until())
		return
	}
	if !a.known {
		a.adoptCrashes(state)
	}
	a.state, a.known, a.stale, a.stateFailures = state, true, false, backoff{}
}

// adoptCrashes continues the back-offs of containers that another process has restarted.
func (a *actor) adoptCrashes(state cri.Pod) {
	for _, c := range state.Containers {
		if m := a.memory(c.Name); m.crash.pause == 0 {
			m.crash.adopt(c.Attempt, c.StartedAt)
		}
	}
}

// memory returns what is remembered of a container.
func (a *actor) memory(name string) *containerMemory {
	m := a.containers[name]
	if m == nil {
		m = &containerMemory{crash: crashBackoff{of: crashPauses}}
		if a.injected(name) {
			m.crash.of = sidecarPauses
		}
		a.containers[name] = m
	}
	return m
}

// retry returns the back-off of that name.
func (a *actor) retry(name string) *backoff {
	b := a.retries[name]
	if b == nil {
		b = &backoff{}
		a.retries[name] = b
	}
	return b
}

// due reports whether something that failed before may be tried again, and sets the alarm if not.
func (a *actor) due(name string) bool {
	b := a.retries[name]
	if b == nil || !b.waiting(time.Now()) {
		return true
	}
	a.alarm.set(b.until())
	return false
}

// injected reports whether the container was added to the API's pod.
func (a *actor) injected(name string) bool {
	c, _ := findContainer(a.pod, name)
	return c == nil
}

// spec returns the pod as it runs, or the API's before it has been prepared.
func (a *actor) spec() *corev1.Pod {
	if a.running != nil {
		return a.running
	}
	return a.pod
}
