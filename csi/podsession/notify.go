package podsession

import (
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar/notice"
)

// Notify takes an event of the broker: it is to be the broker's OnEvent. It does not block. After a restart of this process it knows the pod of a
// session once the kubelet has published the volume again, which it does every minute or two.
func (k *Keeper) Notify(e broker.Event) {
	k.mu.Lock()
	pod := k.owners[e.Session]
	k.mu.Unlock()
	if pod != nil {
		notice.Tell(k.o.Recorder, k.o.Broker, pod, e.VolumeName, e)
	}
}

// own notes whose a session is.
func (k *Keeper) own(id mount.SessionID, pod runtime.Object) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owners[id] = pod
}

// disown forgets whose a session was.
func (k *Keeper) disown(id mount.SessionID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.owners, id)
}
