package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/sidemount/sidemount/provider/cri"
)

const (
	// prepareTimeout bounds one attempt to prepare a pod or its volumes.
	prepareTimeout = 2 * time.Minute
	// sandboxTimeout bounds one attempt to run a sandbox.
	sandboxTimeout = 4 * time.Minute
	// sidecarPoll is how soon an injected sidecar is asked again if nobody wakes the actor.
	sidecarPoll = time.Second
)

// Names of back-offs.
const (
	retryPrepare = "prepare"
	retryVolumes = "volumes"
	retrySandbox = "sandbox"
	retryRemove  = "remove"
	retryResize  = "resize/" // and the container's id
	retryStop    = "stop/"   // and the container's id
	retryClean   = "clean"
	retryDelete  = "delete"
)

// keep makes an active pod run as its specification says.
func (a *actor) keep(ctx context.Context) {
	if a.mustStop() {
		a.stage = stopping
		return
	}
	a.prepare(ctx)
	if a.running == nil {
		return
	}
	a.mount(ctx)
	if a.stale {
		return
	}
	v := a.view()
	acts := computeActions(v)
	if acts.done {
		a.stage = stopping
		return
	}
	a.alarm.set(acts.wake)
	a.execute(ctx, acts)
}

// mustStop reports whether the pod is to be ended, and why.
func (a *actor) mustStop() bool {
	switch {
	case a.absent, a.pod.DeletionTimestamp != nil, isFinal(a.pod.Status.Phase), a.stop.verdict != nil:
		return true
	case a.pod.Spec.ActiveDeadlineSeconds == nil:
		return false
	}
	deadline := a.startTime().Add(time.Duration(*a.pod.Spec.ActiveDeadlineSeconds) * time.Second)
	if time.Now().Before(deadline) {
		a.alarm.set(deadline)
		return false
	}
	a.stop.verdict = &verdict{reason: eventDeadlineExceeded, message: "Pod was active on the node longer than the specified deadline"}
	a.events.pod(a.pod, corev1.EventTypeNormal, eventDeadlineExceeded, "%s", a.stop.verdict.message)
	return true
}

func (a *actor) startTime() time.Time {
	switch {
	case a.status != nil && !zeroTime(a.status.StartTime):
		return a.status.StartTime.Time
	case !zeroTime(a.pod.Status.StartTime):
		return a.pod.Status.StartTime.Time
	}
	return time.Now()
}

// prepare brings the pod that runs up to date with the API's pod.
func (a *actor) prepare(ctx context.Context) {
	pod := a.grant()
	if a.prepared != nil && sameIntent(a.prepared, pod) && !a.again || !a.due(retryPrepare) {
		return
	}
	begun := a.begin(ctx, "prepare", operation{}, prepareTimeout, func(ctx context.Context) func() {
		running, err := a.e.preparer.Prepare(ctx, pod)
		return func() {
			if err != nil {
				a.prepareFailed(ctx, err)
				return
			}
			a.running, a.prepared = running, pod
			a.recovered(retryPrepare, eventFailedMount)
		}
	})
	if begun {
		a.again = false
	}
}

// sameIntent reports whether two versions of a pod ask for the same. Of one generation there may be two: as the pod asks for
// resources, and as the node grants them.
func sameIntent(a, b *corev1.Pod) bool {
	if a.Generation != b.Generation || !maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations) {
		return false
	}
	for i := range a.Spec.Containers {
		if !apiequality.Semantic.DeepEqual(a.Spec.Containers[i].Resources, b.Spec.Containers[i].Resources) {
			return false
		}
	}
	return true
}

func (a *actor) prepareFailed(ctx context.Context, err error) {
	if ctx.Err() == context.Canceled {
		return
	}
	reason, message, pause := eventFailedMount, err.Error(), time.Duration(0)
	var p *PrepareError
	if errors.As(err, &p) {
		message, pause = p.Message, p.Retry
		if p.Reason != "" {
			reason = p.Reason
		}
	}
	a.failed(ctx, retryPrepare, reason, message)
	if pause > 0 {
		a.retry(retryPrepare).pause = pause
	}
}

// failed counts a failure that keeps the pod from starting, and tells the user.
func (a *actor) failed(ctx context.Context, name, event, message string) {
	a.retry(name).failed(time.Now(), retryPauses)
	a.message = message
	a.events.once(a.pod, event, message)
	log.G(ctx).WithField("reason", event).WithField("message", message).Warn("pod cannot start yet")
}

// recovered ends a back-off after a success.
func (a *actor) recovered(name, event string) {
	delete(a.retries, name)
	a.events.mended(event)
	a.message = ""
}

// mount sets up the volumes of the pod that runs.
func (a *actor) mount(ctx context.Context) {
	if a.mountedOf == a.running || !a.due(retryVolumes) {
		return
	}
	pod := a.running
	a.begin(ctx, "volumes", operation{}, prepareTimeout, func(ctx context.Context) func() {
		err := a.e.volumes.SetUp(ctx, pod)
		return func() {
			if err == nil {
				a.mounted, a.mountedOf = true, pod
				a.recovered(retryVolumes, eventFailedMount)
			} else if ctx.Err() != context.Canceled {
				a.failed(ctx, retryVolumes, eventFailedMount, err.Error())
			}
		}
	})
}

// view collects what decides about the next actions.
func (a *actor) view() view {
	v := view{
		pod: a.running, state: a.state, now: time.Now(), busy: a.busy(),
		started: a.startedSidecars(), failed: a.failedProbes(), notBefore: a.backoffs(),
		injected: a.injected, hash: a.e.runtime.ContainerHash, leastAttempt: a.leastAttempts(),
		unenforced: a.e.runtime.Unenforced,
	}
	return v
}

// backoffs returns when containers may be started, and updates what they are said to wait for.
func (a *actor) backoffs() map[string]time.Time {
	now := time.Now()
	at := make(map[string]time.Time)
	for name, m := range a.containers {
		for _, b := range []backoff{m.pull, m.failure} {
			if b.waiting(now) && b.until().After(at[name]) {
				at[name] = b.until()
			}
		}
		a.pullBackOff(name, m, now)
		last, ok := a.state.Container(name)
		if !ok || last.State != cri.Exited {
			continue
		}
		until := m.crash.until(last.FinishedAt)
		if until.After(now) && until.After(at[name]) {
			at[name] = until
			a.crashLoop(name, m, last)
		}
	}
	return at
}

// crashLoop tells that a container waits to be restarted.
func (a *actor) crashLoop(name string, m *containerMemory, last cri.Container) {
	c, kind := findContainer(a.spec(), name)
	if c == nil || !restartsAfter(a.spec(), c, kind, last.ExitCode) || m.waiting != nil && m.waiting.Reason == reasonCrashLoop {
		return
	}
	m.waiting = &corev1.ContainerStateWaiting{Reason: reasonCrashLoop,
		Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", m.crash.pause, name, a.title())}
	a.events.container(a.spec(), name, corev1.EventTypeWarning, eventBackOff, "Back-off restarting failed container %s in pod %s", name, a.title())
}

// pullBackOff tells that the next attempt to pull is not due; right after an attempt its error is shown.
func (a *actor) pullBackOff(name string, m *containerMemory, now time.Time) {
	if !m.pull.waiting(now) || m.waiting == nil || m.waiting.Reason != cri.ErrImagePull.Error() {
		return
	}
	if shown := m.pull.since.Add(errorShown); now.Before(shown) {
		a.alarm.set(shown)
		return
	}
	c, _ := findContainer(a.spec(), name)
	if c == nil {
		return
	}
	message := fmt.Sprintf("Back-off pulling image %q", c.Image)
	m.waiting = &corev1.ContainerStateWaiting{Reason: reasonPullBackOff, Message: message + ": " + m.waiting.Reason + ": " + m.waiting.Message}
	a.events.container(a.spec(), name, corev1.EventTypeNormal, eventBackOff, "%s", message)
	a.events.container(a.spec(), name, corev1.EventTypeWarning, eventFailed, "Error: %s", reasonPullBackOff)
}

// title names the pod as the kubelet's messages do.
func (a *actor) title() string { return fmt.Sprintf("%s_%s(%s)", a.pod.Name, a.pod.Namespace, a.uid) }

// leastAttempts returns the restart counts that containers must have at least, because the API server has seen a container of
// the name that the runtime has lost.
func (a *actor) leastAttempts() map[string]uint32 {
	least := make(map[string]uint32)
	for _, list := range [][]corev1.ContainerStatus{a.pod.Status.InitContainerStatuses, a.pod.Status.ContainerStatuses} {
		for i := range list {
			if list[i].ContainerID != "" {
				least[list[i].Name] = uint32(list[i].RestartCount) + 1
			}
		}
	}
	return least
}

// execute begins what is due.
func (a *actor) execute(ctx context.Context, acts actions) {
	for _, k := range acts.kill {
		a.killOne(ctx, k)
	}
	if acts.createSandbox && a.due(retrySandbox) {
		a.createSandbox(ctx, acts)
	}
	sandbox, ok := a.state.Sandbox()
	if a.ops["sandbox"] != nil {
		a.prefetch(ctx)
	}
	if ok && sandbox.Ready && a.mounted {
		for _, s := range acts.start {
			a.startOne(ctx, s, sandbox, operation{container: s.container.Name})
		}
	}
	for _, r := range acts.resize {
		a.resizeOne(ctx, r)
	}
	if len(acts.remove) > 0 {
		a.removeDead(ctx, acts.remove)
	}
}

func (a *actor) createSandbox(ctx context.Context, acts actions) {
	pod := a.running
	a.begin(ctx, "sandbox", operation{}, sandboxTimeout, func(ctx context.Context) func() {
		err := a.runSandbox(ctx, pod, acts)
		return func() {
			a.stale = true
			switch {
			case err == nil:
				a.recovered(retrySandbox, eventFailedSandbox)
				// Should this one die at once, the next is not tried at once.
				a.retry(retrySandbox).failed(time.Now(), retryPauses)
			case ctx.Err() == context.Canceled:
			case errors.Is(err, ErrRuntimeNotReady):
				a.failed(ctx, retrySandbox, eventNetworkNotReady, "network is not ready: "+cri.Message(err))
			default:
				a.failed(ctx, retrySandbox, eventFailedSandbox, "Failed to create pod sandbox: "+cri.Message(err))
			}
		}
	})
}

func (a *actor) runSandbox(ctx context.Context, pod *corev1.Pod, acts actions) error {
	if len(acts.stopSandboxes) > 0 {
		a.e.recorder.Eventf(podReference(pod, ""), corev1.EventTypeNormal, eventSandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	for _, id := range acts.stopSandboxes {
		if err := a.e.runtime.StopSandbox(ctx, id); err != nil {
			return err
		}
	}
	select {
	case a.e.sandboxSlots <- struct{}{}:
		defer func() { <-a.e.sandboxSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := a.e.runtime.RunSandbox(ctx, pod, acts.attempt)
	return err
}

// removeDead removes containers that nobody needs.
func (a *actor) removeDead(ctx context.Context, dead []cri.Container) {
	if !a.due(retryRemove) {
		return
	}
	a.begin(ctx, "remove", operation{}, stateTimeout, func(ctx context.Context) func() {
		var failure error
		for _, c := range dead {
			if err := a.e.runtime.RemoveContainer(ctx, c); err != nil {
				failure = err
				log.G(ctx).WithError(err).WithField("container", c.Name).Warn("dead container not removed, will retry")
			}
		}
		return func() {
			a.stale = true
			delete(a.retries, retryRemove)
			if failure != nil {
				a.retry(retryRemove).failed(time.Now(), retryPauses)
			}
		}
	})
}
