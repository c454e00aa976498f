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
	case broker.SessionLost, broker.ClientStarted, broker.ClientRestarted, broker.SessionRestored, broker.ClientUpgraded:
		k.troubled.Add(e.Session)
	}
	k.tell(e, pod, users)
}

// tell records what people should know: the Mount Pod has all of it, its users what concerns their open files.
func (k *Keeper) tell(e broker.Event, pod *corev1.Pod, users []*corev1.Pod) {
	kind := corev1.EventTypeWarning
	switch e.Reason {
	case broker.ClientStarted, broker.ClientRestarted, broker.SessionRestored, broker.ClientUpgraded:
		kind = corev1.EventTypeNormal
	case broker.SessionClosed:
		return
	}
	if pod != nil {
		k.o.Recorder.Event(pod, kind, string(e.Reason), e.Message)
	}
	if e.Reason != broker.SessionLost && e.Reason != broker.ClientRestarted && e.Reason != broker.ClientUpgraded {
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

// note remembers a pod that the API server has answered with, unless the watch has been faster.
func (k *Keeper) note(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if known := k.pods[session(pod)][pod.Name]; known == nil || known.UID != pod.UID {
		k.remember(pod)
	}
}

// see takes what the watch tells of a pod.
func (k *Keeper) see(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remember(pod)
}

// remember keeps a pod's state and has its share looked at where that may need something. The caller holds mu.
func (k *Keeper) remember(pod *corev1.Pod) {
	id := session(pod)
	if k.pods[id] == nil {
		k.pods[id] = map[string]*corev1.Pod{}
	}
	k.pods[id][pod.Name] = pod
	s := k.shares[id]
	if s == nil {
		k.troubled.Add(id)
		return
	}
	if pod.Name == s.record.Pod {
		s.created = true
		if pod.DeletionTimestamp != nil {
			k.departing.Add(id)
		}
	}
	s.wake()
	next := s.record.Next != nil && pod.Name == s.record.Next.Pod
	if pod.Name != s.record.Pod && !next || pod.DeletionTimestamp != nil || finished(pod) || pod.Annotations[UpgradeAnnotation] != "" {
		k.troubled.Add(id)
	}
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
