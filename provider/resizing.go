package provider

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// resizing is what an actor knows about the resources of its pod.
type resizing struct {
	// granted is the API's pod with the resources that the node grants, made from the version of; nil before the first.
	granted, of *corev1.Pod
	// pending says why the pod does not get what it asks for; nil if it does.
	pending *corev1.PodCondition
	// failure is why the runtime could not put resources in force; "" if it could.
	failure string
}

// grant decides about the resources of the pod as it is now in the API.
func (a *actor) grant() *corev1.Pod {
	r := &a.resizing
	if r.of == a.pod && r.pending == nil {
		return r.granted
	}
	status := a.status
	if status == nil {
		status = &a.pod.Status
	}
	pending := r.pending
	r.granted, r.pending = grant(a.pod, status, a.e.others(a.uid), a.e.allocatable())
	r.of = a.pod
	switch {
	case r.pending == nil:
	case pending == nil || pending.Reason != r.pending.Reason:
		a.events.pod(a.pod, corev1.EventTypeWarning, "Resize"+r.pending.Reason, "Pod resize %s: %s", r.pending.Reason, r.pending.Message)
	}
	if r.pending != nil {
		r.pending.ObservedGeneration = a.pod.Generation
		a.alarm.set(time.Now().Add(resizeRetry))
	}
	return r.granted
}

// resizeOne puts the granted resources of a running container in force.
func (a *actor) resizeOne(ctx context.Context, r resize) {
	id, name, pod := r.container.ID, r.container.Name, a.running
	if !a.due(retryResize + id) {
		return
	}
	begun := a.begin(ctx, "resize/"+id, operation{container: name}, createTimeout, func(ctx context.Context) func() {
		err := a.e.runtime.ResizeContainer(ctx, pod, r.spec, id)
		return func() {
			a.stale = true
			switch {
			case err == nil:
				// Should the runtime not show the new resources, it is not asked again at once.
				a.retry(retryResize+id).failed(time.Now(), retryPauses)
				a.resizing.failure = ""
				a.events.pod(a.pod, corev1.EventTypeNormal, "ResizeCompleted", "Pod resize completed: %s", totalRequests(pod))
			case ctx.Err() != context.Canceled:
				a.retry(retryResize+id).failed(time.Now(), retryPauses)
				a.resizing.failure = cri.Message(err)
				a.events.once(a.pod, "ResizeError", "Pod resize failed: "+a.resizing.failure)
			}
		}
	})
	if begun {
		a.events.pod(a.pod, corev1.EventTypeNormal, "ResizeStarted", "Pod resize started: %s", totalRequests(pod))
	}
}

// inProgress returns the condition of a pod whose resources in force are not yet those that it was granted, nil for others.
func (a *actor) inProgress() *corev1.PodCondition {
	if a.running == nil || a.stage != active || a.running.Generation < 2 {
		return nil
	}
	for i := range a.running.Spec.Containers {
		c := &a.running.Spec.Containers[i]
		have, ok := a.state.Container(c.Name)
		if !ok || have.State != cri.Running {
			continue
		}
		if cpu, memory := a.e.runtime.Unenforced(a.running, c, have); cpu || memory {
			condition := &corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
			if a.resizing.failure != "" {
				condition.Reason, condition.Message = corev1.PodReasonError, a.resizing.failure
			}
			return condition
		}
	}
	return nil
}
