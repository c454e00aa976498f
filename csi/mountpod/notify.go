package mountpod

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount/broker"
)

// Notify takes an event of the broker: it is to be the broker's OnEvent. It does not block.
func (k *Keeper) Notify(e broker.Event) {
	s := k.of(e.Session)
	if s == nil {
		return
	}
	k.metrics.event(e)
	var pod *corev1.Pod
	var users []*corev1.Pod
	k.change(s, func() {
		if e.Reason == broker.ClientFailed {
			s.clientFailures++
		}
		pod, users = k.pod(s), s.userPods()
	})
	switch e.Reason {
	case broker.SessionLost, broker.ClientStarted, broker.ClientRestarted, broker.SessionRestored:
		k.troubled.Add(e.Session)
	}
	k.tell(e, pod, users)
}

// tell records what people should know: the Mount Pod has all of it, its users what concerns their open files.
func (k *Keeper) tell(e broker.Event, pod *corev1.Pod, users []*corev1.Pod) {
	kind := corev1.EventTypeWarning
	switch e.Reason {
	case broker.ClientStarted, broker.ClientRestarted, broker.SessionRestored:
		kind = corev1.EventTypeNormal
	case broker.SessionClosed:
		return
	}
	if pod != nil {
		k.o.Recorder.Event(pod, kind, string(e.Reason), e.Message)
	}
	if e.Reason != broker.SessionLost && e.Reason != broker.ClientRestarted {
		return
	}
	for _, user := range users {
		k.o.Recorder.Event(user, kind, string(e.Reason), fmt.Sprintf("volume %s: %s", e.Volume, e.Message))
	}
}

// watcher takes what the watch of Mount Pods sees.
type watcher struct{ *Keeper }

var _ Handler = watcher{}

// Changed takes a Mount Pod as it is now.
func (w watcher) Changed(pod *corev1.Pod) { w.see(pod) }

// Gone takes a Mount Pod that is there no more.
func (w watcher) Gone(pod *corev1.Pod) { w.miss(pod) }

// Synced takes note that all pods are known.
func (w watcher) Synced() { close(w.synced) }

// see remembers a pod, unless a later state of it is known already, and has its share looked at where that may need something.
func (k *Keeper) see(pod *corev1.Pod) {
	id := session(pod)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pods[id] == nil {
		k.pods[id] = map[string]*corev1.Pod{}
	}
	before := k.pods[id][pod.Name]
	if before != nil && before.UID == pod.UID && stale(before, pod) {
		return
	}
	k.pods[id][pod.Name] = pod
	s := k.shares[id]
	if s == nil {
		k.troubled.Add(id)
		return
	}
	if pod.Name == s.record.Pod {
		s.created = true
	}
	s.wake()
	if pod.Name != s.record.Pod && pod.Name != s.next || pod.DeletionTimestamp != nil || finished(pod) {
		k.troubled.Add(id)
	}
}

// stale is true for a state that is older than the one that is known.
func stale(known, told *corev1.Pod) bool {
	return known.DeletionTimestamp != nil && told.DeletionTimestamp == nil || finished(known) && !finished(told)
}

// miss forgets a pod.
func (k *Keeper) miss(pod *corev1.Pod) {
	id := session(pod)
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.pods[id][pod.Name]; now == nil || now.UID != pod.UID {
		return
	}
	rest := maps.Clone(k.pods[id])
	delete(rest, pod.Name)
	k.pods[id] = rest
	if len(rest) == 0 {
		delete(k.pods, id)
	}
	if s := k.shares[id]; s != nil {
		s.wake()
		k.troubled.Add(id)
	}
}
