package provider

import (
	"context"
	"maps"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/cri"
)

const (
	// streamPause is how long to wait before subscribing anew to a broken stream of events.
	streamPause = time.Second
	// strangersAtOnce bounds how many unknown pods one sweep looks up, so that it stays short.
	strangersAtOnce = 64
	// departedFor is how long a deleted pod is remembered.
	departedFor = 10 * time.Minute
)

// follow passes the runtime's events on to the actors until ctx ends.
func (e *Engine) follow(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := e.runtime.Events(ctx)
		if err != nil {
			log.G(ctx).WithError(err).Warn("no events from the runtime, will retry")
		} else {
			for event := range events {
				e.event(event)
			}
		}
		// Without events the sweep is what finds changes.
		e.lookNow()
		timer := time.NewTimer(streamPause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (e *Engine) event(event cri.Event) {
	if event.Type == cri.Resync {
		e.lookNow()
		return
	}
	e.tell(event.UID, func(m *mail) { m.dirty = true })
}

func (e *Engine) lookNow() {
	select {
	case e.look <- struct{}{}:
	default:
	}
}

// sweeps compares at intervals until ctx ends.
func (e *Engine) sweeps(ctx context.Context) {
	ticker := time.NewTicker(e.sweepPause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-e.look:
		}
		if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("runtime not swept, will retry")
		}
	}
}

// sweep compares what the runtime has with what the actors believe. What differs is looked at anew; what nobody knows is ended if
// the API server does not know it either.
func (e *Engine) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	known := e.present()
	pods, err := e.runtime.Pods(ctx)
	if err != nil {
		return err
	}
	strangers := 0
	for _, p := range pods {
		a := known[p.UID]
		delete(known, p.UID)
		switch {
		case a != nil && !sameState(p, a.shown.Load().State):
			a.box.post(func(m *mail) { m.dirty = true })
		case a == nil && strangers < strangersAtOnce:
			strangers++
			e.stranger(ctx, p)
		}
	}
	for _, a := range known {
		if s := a.shown.Load().State; len(s.Sandboxes) > 0 || len(s.Containers) > 0 {
			a.box.post(func(m *mail) { m.dirty = true })
		}
	}
	return e.leftovers(ctx)
}

// present returns the actors, and forgets pods that have departed so long ago that nobody can speak of them any more.
func (e *Engine) present() map[types.UID]*actor {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.departed, func(uid types.UID, at time.Time) bool {
		return e.actors[uid] == nil && time.Since(at) > departedFor
	})
	return maps.Clone(e.actors)
}

// leftovers ends pods of which nothing is left but volumes, because this process was killed in the middle of removing them. One
// is left alone until the second time that it is seen: its actor may just have begun.
func (e *Engine) leftovers(ctx context.Context) error {
	uids, err := e.volumes.Holders(ctx)
	if err != nil {
		return err
	}
	known := e.present()
	suspects := make(map[types.UID]bool)
	for _, uid := range uids {
		switch {
		case known[uid] != nil:
		case e.suspects[uid]:
			log.G(ctx).WithField("uid", uid).Info("removing the volumes of a pod that is gone")
			e.adopt(orphan(cri.Pod{UID: uid}, e.node))
		default:
			suspects[uid] = true
		}
	}
	e.suspects = suspects
	return nil
}

// sameState reports whether two looks at a pod agree about what exists and what runs.
func sameState(a, b cri.Pod) bool {
	if len(a.Sandboxes) != len(b.Sandboxes) || len(a.Containers) != len(b.Containers) {
		return false
	}
	ready := make(map[string]bool, len(a.Sandboxes))
	for _, s := range a.Sandboxes {
		ready[s.ID] = s.Ready
	}
	for _, s := range b.Sandboxes {
		if r, ok := ready[s.ID]; !ok || r != s.Ready {
			return false
		}
	}
	states := make(map[string]cri.ContainerState, len(a.Containers))
	for _, c := range a.Containers {
		states[c.ID] = c.State
	}
	for _, c := range b.Containers {
		if states[c.ID] != c.State {
			return false
		}
	}
	return true
}

// stranger decides about a pod that the runtime has and no actor owns. If the API server has it, the watch will tell; if not,
// nobody will ever ask for its end.
func (e *Engine) stranger(ctx context.Context, p cri.Pod) {
	pod, err := lookUp(ctx, e.client, e.node, p.Namespace, p.Name)
	switch {
	case err == nil && pod.UID == p.UID:
		e.Update(pod)
		return
	case err != nil && !apierrors.IsNotFound(err):
		log.G(ctx).WithError(err).WithField("pod", p.Name).WithField("namespace", p.Namespace).Warn("unknown pod left alone for now")
		return
	}
	log.G(ctx).WithField("uid", p.UID).WithField("pod", p.Name).WithField("namespace", p.Namespace).Info("ending a pod that the API does not have")
	e.adopt(orphan(p, e.node))
}

// orphan is what is known of a pod from its containers alone.
func orphan(p cri.Pod, node string) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = p.Namespace, p.Name, p.UID
	pod.Spec.NodeName = node
	for _, c := range p.Containers {
		if c.TerminationGracePeriod != nil {
			pod.Spec.TerminationGracePeriodSeconds = c.TerminationGracePeriod
		}
	}
	return pod
}

// adopt owns an orphan to end it.
func (e *Engine) adopt(pod *corev1.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.actors[pod.UID] == nil {
		e.add(newActor(e, pod, true, false))
	}
}
