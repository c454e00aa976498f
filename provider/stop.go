package provider

import (
	"context"
	"slices"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/probe"
)

const (
	// leastGrace is what every container gets between its stop signal and SIGKILL, as of the kubelet.
	leastGrace = 2 * time.Second
	// stopMargin is how much longer than the grace period the runtime may take to end a container.
	stopMargin = time.Minute
)

// stop is how a pod is being ended.
type stop struct {
	// verdict is why the node ended it, nil for other reasons.
	verdict *verdict
	// deadline is when its grace period is over; zero before the stopping has begun.
	deadline time.Time
	// grace is the period that deadline was computed from.
	grace time.Duration
	// hooks has the ids of containers whose preStop hook has begun; hooked those whose hook has ended.
	hooks, hooked map[string]bool
	// ended has the ids of containers that the runtime says to have ended.
	ended map[string]bool
	// cut says that the pod's file systems have been taken away.
	cut bool
	// killed has the ids of containers about whose end an event has been recorded.
	killed map[string]bool
}

// stopPass ends the containers of the pod: what the application runs first and in parallel, then native sidecars in reverse order. Injected ones that the
// application or its data still need are kept until then.
func (a *actor) stopPass(ctx context.Context) {
	a.stopProbes()
	if a.interrupt() {
		return
	}
	a.setDeadline()
	if a.stale {
		return
	}
	live := a.live()
	if waits := a.revive(ctx, live); len(live) == 0 && !waits && !a.ending() {
		a.stage = cleaning
		return
	}
	for _, c := range live {
		a.preStop(ctx, c)
	}
	for _, c := range a.turnToStop(live) {
		a.stopOne(ctx, c)
	}
	a.cutOff(ctx, live)
}

// cutOff takes their file systems from containers that do not end long after SIGKILL: what waits for a file system whose server does
// not answer cannot be killed, but an aborted one answers at once. The sidecar would wait for them for ever otherwise.
func (a *actor) cutOff(ctx context.Context, live []cri.Container) {
	at := a.stop.deadline.Add(leastGrace + a.e.stuckAfter)
	switch {
	case a.stop.cut || !slices.ContainsFunc(live, func(c cri.Container) bool { return !a.injected(c.Name) }):
		return
	case time.Now().Before(at):
		a.alarm.set(at)
		return
	}
	a.stop.cut = true
	a.events.once(a.pod, eventFailedKill, "containers do not end after SIGKILL, so their volumes are cut off")
	pod := a.pod
	a.begin(ctx, "cut", operation{ends: true}, cleanTimeout, func(ctx context.Context) func() {
		if err := a.e.preparer.Release(ctx, pod, 0); err != nil {
			log.G(ctx).WithError(err).Warn("volumes of a stuck pod not cut off")
		}
		return func() { a.stale = true }
	})
}

// live returns the containers that may have processes. One that the runtime has lost track of counts until the runtime has been
// asked to end it: it cannot tell more than that.
func (a *actor) live() []cri.Container {
	return slices.DeleteFunc(liveContainers(a.state), func(c cri.Container) bool {
		return c.State == cri.Unknown && a.stop.ended[c.ID]
	})
}

// ending reports whether an operation that ends a container is under way.
func (a *actor) ending() bool {
	for _, op := range a.ops {
		if op.ends && op.container != "" {
			return true
		}
	}
	return false
}

// setDeadline computes when the grace period is over. A later request may shorten it, never lengthen it.
func (a *actor) setDeadline() {
	grace := a.podGrace()
	if a.stop.deadline.IsZero() {
		a.stop.grace, a.stop.deadline = grace, time.Now().Add(grace)
		a.stop.hooks, a.stop.hooked = map[string]bool{}, map[string]bool{}
		a.stop.killed, a.stop.ended = map[string]bool{}, map[string]bool{}
		a.askAgain()
		return
	}
	if grace >= a.stop.grace {
		return
	}
	a.stop.grace = grace
	if d := time.Now().Add(grace); d.Before(a.stop.deadline) {
		a.stop.deadline = d
		a.askAgain()
	}
}

// askAgain forgets the operations that end containers, so that the runtime is asked anew with the time that is left.
func (a *actor) askAgain() {
	for key, op := range a.ops {
		if op.ends && op.container != "" {
			op.cancel()
			delete(a.ops, key)
		}
	}
}

// podGrace is how long the pod may take to end.
func (a *actor) podGrace() time.Duration {
	switch {
	case a.absent:
		// Nobody can see the pod any more, and one of its name may be waiting for its resources.
		return leastGrace
	case a.pod.DeletionGracePeriodSeconds != nil:
		return time.Duration(*a.pod.DeletionGracePeriodSeconds) * time.Second
	case a.pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*a.pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return leastGrace
}

// graceOf is how long one container may take to end while its pod goes on.
func graceOf(pod *corev1.Pod, c *corev1.Container, reason killReason, override *time.Duration) time.Duration {
	var p *corev1.Probe
	switch reason {
	case killLiveness:
		p = c.LivenessProbe
	case killStartup:
		p = c.StartupProbe
	}
	switch {
	case override != nil:
		return *override
	case p != nil && p.TerminationGracePeriodSeconds != nil:
		return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return leastGrace
}

// turnToStop returns the live containers whose turn to end has come. A native sidecar waits for everything that started after it,
// but not longer than the grace period; an injected one always waits, because the others may still write through it.
func (a *actor) turnToStop(live []cri.Container) []cri.Container {
	rank := a.stopRanks()
	first := -1
	for _, c := range live {
		first = max(first, rank[c.Name])
	}
	late := !time.Now().Before(a.stop.deadline)
	if !late {
		a.alarm.set(a.stop.deadline)
	}
	var turn []cri.Container
	for _, c := range live {
		if rank[c.Name] == first || late && !a.injected(c.Name) {
			turn = append(turn, c)
		}
	}
	return turn
}

// stopRanks gives the containers of the pod their turn: those of the highest rank end first. Containers of names that the pod
// does not have rank with the application.
func (a *actor) stopRanks() map[string]int {
	spec := a.spec()
	last := len(spec.Spec.InitContainers)
	rank := make(map[string]int)
	for _, c := range a.state.Containers {
		rank[c.Name] = last
	}
	for i := range spec.Spec.InitContainers {
		if isSidecar(&spec.Spec.InitContainers[i]) {
			rank[spec.Spec.InitContainers[i].Name] = i
		}
	}
	return rank
}

// preStop runs the container's hook, once. Those of sidecars run at the same time as those of the application.
func (a *actor) preStop(ctx context.Context, c cri.Container) {
	if a.stop.hooks[c.ID] {
		return
	}
	a.stop.hooks[c.ID] = true
	spec, _ := findContainer(a.spec(), c.Name)
	left := time.Until(a.stop.deadline)
	if c.State != cri.Running || left <= 0 || spec == nil || spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil {
		a.stop.hooked[c.ID] = true
		return
	}
	pod := a.spec()
	target := a.target(spec, c)
	begun := a.begin(ctx, "prestop/"+c.ID, operation{container: c.Name, ends: true}, left, func(ctx context.Context) func() {
		a.runPreStop(ctx, pod, spec, target)
		return func() { a.stop.hooked[c.ID] = true }
	})
	if !begun {
		a.stop.hooked[c.ID] = true
	}
}

func (a *actor) runPreStop(ctx context.Context, pod *corev1.Pod, c *corev1.Container, t probe.Target) {
	if err := runHook(ctx, a.e.runtime, c.Lifecycle.PreStop, t); err != nil && ctx.Err() == nil {
		a.events.container(pod, c.Name, corev1.EventTypeWarning, eventFailedPreStop, "PreStopHook failed")
	}
}

// target is the container as its hooks and probes reach it.
func (a *actor) target(spec *corev1.Container, c cri.Container) probe.Target {
	t := probe.Target{ID: c.ID, Container: spec}
	if sandbox, ok := a.state.Sandbox(); ok {
		if ips := a.podIPs(sandbox); len(ips) > 0 {
			t.Host = ips[0]
		}
	}
	return t
}

// stopOne sends the container its stop signal and SIGKILL when its time is over.
func (a *actor) stopOne(ctx context.Context, c cri.Container) {
	left := time.Until(a.stop.deadline)
	if !a.stop.hooked[c.ID] && left > 0 || !a.due(retryStop+c.ID) {
		return
	}
	grace := max(left, leastGrace)
	if a.injected(c.Name) {
		grace = max(left, a.e.sidecarGrace)
	}
	if !a.stop.killed[c.ID] {
		a.stop.killed[c.ID] = true
		a.events.container(a.spec(), c.Name, corev1.EventTypeNormal, eventKilling, "Stopping container %s", c.Name)
	}
	a.begin(ctx, "stop/"+c.ID, operation{container: c.Name, ends: true}, grace+stopMargin, func(ctx context.Context) func() {
		err := a.e.runtime.StopContainer(ctx, c.ID, grace)
		return func() { a.stopped(ctx, c, err) }
	})
}

// stopped takes note of how ending a container went. Even after a success the runtime is not asked again at once: if it still
// shows the container as running then, it would be asked for ever.
func (a *actor) stopped(ctx context.Context, c cri.Container, err error) {
	a.stale = true
	if ctx.Err() == context.Canceled {
		return
	}
	a.retry(retryStop+c.ID).failed(time.Now(), retryPauses)
	if err == nil {
		if a.stop.ended != nil {
			a.stop.ended[c.ID] = true
		}
		return
	}
	a.events.once(a.pod, eventFailedKill, "error killing pod: "+cri.Message(err))
	log.G(ctx).WithError(err).WithField("container", c.Name).Warn("container not stopped, will retry")
}

// killOne ends one container of a pod that goes on.
func (a *actor) killOne(ctx context.Context, k kill) {
	c, pod := k.container, a.running
	spec, _ := findContainer(pod, c.Name)
	if k.reason == killRetired {
		spec = &corev1.Container{Name: c.Name}
	}
	if spec == nil || !a.due(retryStop+c.ID) {
		return
	}
	grace, target := graceOf(pod, spec, k.reason, nil), a.target(spec, c)
	begun := a.begin(ctx, "stop/"+c.ID, operation{container: c.Name, ends: true}, grace+stopMargin, func(ctx context.Context) func() {
		began := time.Now()
		if spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil && c.State == cri.Running && grace > 0 {
			hookCtx, cancel := context.WithTimeout(ctx, grace)
			a.runPreStop(hookCtx, pod, spec, target)
			cancel()
		}
		err := a.e.runtime.StopContainer(ctx, c.ID, max(grace-time.Since(began), leastGrace))
		return func() { a.stopped(ctx, c, err) }
	})
	if begun {
		a.events.container(pod, c.Name, corev1.EventTypeNormal, eventKilling, "%s", k.message)
	}
}
