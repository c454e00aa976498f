package podsession

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

// Notify takes an event of the broker: it is to be the broker's OnEvent. It does not block. After a restart of this process it knows the pod of a
// session once the kubelet has published the volume again, which it does every minute or two.
func (k *Keeper) Notify(e broker.Event) {
	k.mu.Lock()
	pod := k.owners[e.Session]
	k.mu.Unlock()
	if pod == nil {
		return
	}
	s, err := k.o.Broker.Status(e.Session)
	tell, warning := e.ForUsers(err == nil && s.State != mount.Mounted)
	if !tell {
		return
	}
	kind := corev1.EventTypeNormal
	if warning {
		kind = corev1.EventTypeWarning
	}
	k.o.Recorder.Event(pod, kind, string(e.Reason), fmt.Sprintf("volume %q: %s", e.VolumeName, e.Message))
}

// own notes whose a session is.
func (k *Keeper) own(id mount.SessionID, pod runtime.Object) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owners[id] = pod
}
