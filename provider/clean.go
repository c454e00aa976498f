package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

const (
	// cleanTimeout bounds one attempt to give back what a pod used.
	cleanTimeout = 3 * time.Minute
	// deleteTimeout bounds one attempt to delete an API object.
	deleteTimeout = 15 * time.Second
	// removalsAtOnce bounds how many pods' remains are removed at the same time.
	removalsAtOnce = 4
)

// cleanPass gives back the network, the sessions and the volumes of a pod whose containers have ended. It tries again until that
// has succeeded: a pod must not be reported gone while something of it is mounted.
func (a *actor) cleanPass(ctx context.Context) {
	if !a.due(retryClean) {
		return
	}
	pod, state, grace := a.pod, a.state, a.e.sidecarGrace
	a.begin(ctx, "clean", operation{ends: true}, cleanTimeout, func(ctx context.Context) func() {
		err := a.e.clean(ctx, pod, state, grace)
		return func() {
			switch {
			case err == nil:
				a.stage, a.stale = finished, true
				// Should the runtime still show something as running, it is not asked again at once.
				a.retry(retryClean).failed(time.Now(), retryPauses)
				a.running, a.prepared, a.mountedOf = nil, nil, nil
			case ctx.Err() != context.Canceled:
				a.retry(retryClean).failed(time.Now(), retryPauses)
				a.events.once(a.pod, eventFailedKill, "error cleaning up pod: "+cri.Message(err))
				log.G(ctx).WithError(err).Warn("pod not cleaned up, will retry")
			}
		}
	})
}

// clean stops the pod's sandboxes and gives back its sessions and volumes.
func (e *Engine) clean(ctx context.Context, pod *corev1.Pod, state cri.Pod, grace time.Duration) error {
	for _, s := range state.Sandboxes {
		if err := e.runtime.StopSandbox(ctx, s.ID); err != nil {
			return fmt.Errorf("stop sandbox: %w", err)
		}
	}
	if err := e.volumes.Unbind(ctx, pod.UID); err != nil {
		return fmt.Errorf("unbind volumes: %w", err)
	}
	if err := e.preparer.Release(ctx, pod, grace); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := e.volumes.TearDown(ctx, pod.UID); err != nil {
		return fmt.Errorf("tear down volumes: %w", err)
	}
	return nil
}

// finishPass waits for the end of an ended pod's API object, removing it if that was asked for, and then removes what the runtime
// has kept.
func (a *actor) finishPass(ctx context.Context) {
	switch {
	case !a.stale && a.alive():
		// A call that was cancelled has taken effect after all.
		a.stage = stopping
	case a.absent:
		a.removeAll(ctx)
	case a.pod.DeletionTimestamp != nil && !a.deleted && a.published():
		a.deleteObject(ctx)
	}
}

// alive reports whether the runtime runs something of the pod.
func (a *actor) alive() bool {
	if len(a.live()) > 0 {
		return true
	}
	for _, s := range a.state.Sandboxes {
		if s.Ready {
			return true
		}
	}
	return false
}

// published reports whether the API server has the final status.
func (a *actor) published() bool {
	return a.status != nil && isFinal(a.status.Phase) && a.confirmed == a.seq
}

// deleteObject removes the pod's API object, this pod's only.
func (a *actor) deleteObject(ctx context.Context) {
	if !a.due(retryDelete) {
		return
	}
	pod := a.pod
	a.begin(ctx, "delete", operation{ends: true}, deleteTimeout, func(ctx context.Context) func() {
		options := metav1.NewDeleteOptions(0)
		options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
		err := a.e.client.Pods(pod.Namespace).Delete(ctx, pod.Name, *options)
		return func() {
			switch {
			case err == nil:
				// Finalizers may keep the object; it is not asked for twice, since only they decide now.
				a.deleted = true
			case apierrors.IsNotFound(err), apierrors.IsConflict(err):
				a.absent = true
			case ctx.Err() != context.Canceled:
				a.retry(retryDelete).failed(time.Now(), retryPauses)
				log.G(ctx).WithError(err).Warn("pod not deleted from the API, will retry")
			}
		}
	})
}

// removeAll removes the pod's sandboxes and containers from the runtime; then the actor's work is done.
func (a *actor) removeAll(ctx context.Context) {
	if a.stale || !a.due(retryRemove) || !a.lingered() {
		return
	}
	if a.purged && len(a.state.Sandboxes) == 0 && len(a.state.Containers) == 0 {
		a.stage = gone
		return
	}
	pod, state := a.pod, a.state
	a.begin(ctx, "remove", operation{ends: true}, cleanTimeout, func(ctx context.Context) func() {
		err := a.e.remove(ctx, pod, state)
		return func() {
			a.stale, a.purged = true, err == nil
			delete(a.retries, retryRemove)
			if err != nil && ctx.Err() != context.Canceled {
				a.retry(retryRemove).failed(time.Now(), retryPauses)
				log.G(ctx).WithError(err).Warn("remains of pod not removed, will retry")
			}
		}
	})
}

// lingered reports whether what is left of the pod has stayed as long as it should.
func (a *actor) lingered() bool {
	if a.ended.IsZero() {
		a.ended = time.Now()
	}
	until := a.ended.Add(a.e.linger)
	if !time.Now().Before(until) {
		return true
	}
	a.alarm.set(until)
	return false
}

// remove removes what the runtime has of the pod, and its logs.
func (e *Engine) remove(ctx context.Context, pod *corev1.Pod, state cri.Pod) error {
	select {
	case e.removalSlots <- struct{}{}:
		defer func() { <-e.removalSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, c := range state.Containers {
		if err := e.runtime.RemoveContainer(ctx, c); err != nil {
			return fmt.Errorf("remove container %s: %w", c.Name, err)
		}
	}
	for _, s := range state.Sandboxes {
		if err := e.runtime.StopSandbox(ctx, s.ID); err != nil {
			return fmt.Errorf("stop sandbox: %w", err)
		}
		if err := e.runtime.RemoveSandbox(ctx, s.ID); err != nil {
			return fmt.Errorf("remove sandbox: %w", err)
		}
	}
	if pod.Name == "" {
		// Only the volumes of this pod were found.
		return nil
	}
	return e.runtime.RemoveLogs(ctx, pod)
}
