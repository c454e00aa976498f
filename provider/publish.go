package provider

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/cri"
)

// PodView is a pod as the engine sees it at one moment. Nothing in it may be changed.
type PodView struct {
	UID types.UID
	// Pod is the API's pod; its status may be older than Status.
	Pod *corev1.Pod
	// Granted is Pod with the resources that the node grants it, which differ after a resize that the node has no room for.
	Granted *corev1.Pod
	// Status is the newest status, whether or not the API server has it yet.
	Status *corev1.PodStatus
	// Running is the pod as it runs, with injected sidecars; nil before it has been prepared and after it has ended.
	Running *corev1.Pod
	// State is what the runtime has.
	State cri.Pod
	// Waiting says by name why containers do not run, injected ones included.
	Waiting map[string]corev1.ContainerStateWaiting
	// Absent says that the API server has no such pod any more.
	Absent bool
}

// publish computes the status and, if it differs, has it written.
func (a *actor) publish() {
	defer a.show()
	if a.absent || !a.known {
		return
	}
	next := computeStatus(a.facts())
	if a.status != nil && apiequality.Semantic.DeepEqual(a.status, &next) && !a.drifted() {
		return
	}
	urgent := a.urgent(&next)
	a.observe(&next)
	a.status = &next
	a.seq++
	a.e.writer.set(a.pod, a.status, a.seq, urgent, a.told)
}

// told is called by the status writer.
func (a *actor) told(seq uint64, absent bool) {
	a.box.post(func(m *mail) {
		m.absent = m.absent || absent
		m.results = append(m.results, func() { a.confirmed = max(a.confirmed, seq) })
	})
}

// drifted reports whether somebody has overwritten what the node owns after it had been written.
func (a *actor) drifted() bool {
	if a.confirmed != a.seq || a.compared == a.pod {
		return false
	}
	a.compared = a.pod
	return a.e.writer.differs(a.pod, a.status)
}

// urgent reports whether somebody waits for the change: it concerns the phase, readiness, or whether a container runs.
func (a *actor) urgent(next *corev1.PodStatus) bool {
	if a.status == nil {
		return next.Phase != corev1.PodPending
	}
	if a.stage != active || a.status.Phase != next.Phase || isTrue(a.status, corev1.PodReady) != isTrue(next, corev1.PodReady) {
		return true
	}
	return livelihood(a.status) != livelihood(next)
}

func isTrue(s *corev1.PodStatus, t corev1.PodConditionType) bool {
	c := findCondition(s.Conditions, t)
	return c != nil && c.Status == corev1.ConditionTrue
}

// livelihood counts the containers that run and those that have ended.
func livelihood(s *corev1.PodStatus) (n [2]int) {
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			switch {
			case list[i].State.Running != nil:
				n[0]++
			case list[i].State.Terminated != nil:
				n[1]++
			}
		}
	}
	return n
}

// observe tells the observer that the pod runs for the first time.
func (a *actor) observe(next *corev1.PodStatus) {
	if a.status != nil && a.status.Phase == corev1.PodPending && next.Phase == corev1.PodRunning && a.e.onRunning != nil {
		a.e.onRunning(a.pod, time.Since(a.born))
	}
}

// facts collects what decides about the status.
func (a *actor) facts() facts {
	f := facts{
		pod: a.pod, old: a.status, state: a.state, now: time.Now(), message: a.message,
		waiting: a.waiting(), hooked: make(map[string]bool),
		hostIPs: a.e.hostIPs(), ended: a.stage > stopping, verdict: a.stop.verdict, granted: a.resizing.granted,
	}
	if a.stage == active {
		f.more = a.e.preparer.Conditions(a.pod)
	}
	for _, c := range []*corev1.PodCondition{a.resizing.pending, a.inProgress()} {
		if c != nil && a.stage == active {
			f.resizing = append(f.resizing, *c)
		}
	}
	if f.message == "" {
		f.message = a.sidecarFailure
	}
	if f.old == nil {
		f.old = &a.pod.Status
	}
	for name, m := range a.containers {
		f.hooked[name] = m.hooked
	}
	f.started, f.ready = a.probeResults()
	return f
}

// waiting says why containers do not run.
func (a *actor) waiting() map[string]corev1.ContainerStateWaiting {
	waiting := make(map[string]corev1.ContainerStateWaiting)
	for name, m := range a.containers {
		if m.waiting != nil {
			waiting[name] = *m.waiting
		}
	}
	return waiting
}

// show makes the present state visible to others.
func (a *actor) show() {
	v := &PodView{
		UID: a.uid, Pod: a.pod, Granted: a.resizing.granted, Status: a.status, Running: a.running, State: a.state, Absent: a.absent,
		Waiting: a.waiting(),
	}
	if v.Granted == nil {
		v.Granted = a.pod
	}
	if v.Status == nil {
		v.Status = &a.pod.Status
	}
	a.shown.Store(v)
}
