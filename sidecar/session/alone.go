package session

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/sidecar"
)

// alone knows which pods have the PersistentVolumes that one pod at a time may use. The scheduler keeps such pods apart; a pod that names
// its node has passed the scheduler by, and the node has to refuse it (KEP-2485).
type alone struct {
	mu sync.Mutex
	// users are the pods by PersistentVolume, nil before the memory of an earlier process has been read.
	users map[string]types.UID
}

// reserve gives the pod those of its volumes that want to be alone, or none of them.
func (a *alone) reserve(m *memory, pod *corev1.Pod, mounts []sidecar.Mount) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users == nil {
		users, err := m.alone()
		if err != nil {
			return err
		}
		a.users = users
	}
	for _, v := range mounts {
		if user, taken := a.users[v.PersistentVolume]; v.Alone && taken && user != pod.UID {
			return &sidecar.Error{
				Reason: sidecar.ReasonVolumeInUse, Object: fmt.Sprintf("PersistentVolumeClaim %s/%s", pod.Namespace, v.Claim), Transient: true,
				Message: "cannot be mounted: volume uses the ReadWriteOncePod access mode and is already in use by another pod",
				Cure:    "delete the other pod, or let the scheduler choose the node",
			}
		}
	}
	for _, v := range mounts {
		if v.Alone {
			a.users[v.PersistentVolume] = pod.UID
		}
	}
	return nil
}

// release takes all volumes from a pod.
func (a *alone) release(pod types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for volume, user := range a.users {
		if user == pod {
			delete(a.users, volume)
		}
	}
}
