// Package notice tells the users of pods what becomes of their volumes.
package notice

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

// Sessions tells how a session is. *broker.Broker does.
type Sessions interface {
	Status(id mount.SessionID) (broker.Session, error)
}

// Tell records what the user of a pod should know of a volume's session. A client that fails before it has ever served is not told here: the pod waits
// for it, and its start says what for.
func Tell(to record.EventRecorder, sessions Sessions, pod runtime.Object, volume string, e broker.Event) {
	kind := corev1.EventTypeWarning
	switch e.Reason {
	case broker.ClientRestarted:
		kind = corev1.EventTypeNormal
	case broker.ClientFailed:
		if s, err := sessions.Status(e.Session); err != nil || s.State == mount.Mounted {
			return
		}
	case broker.ClientHung, broker.SessionLost:
	default:
		return
	}
	to.Event(pod, kind, string(e.Reason), fmt.Sprintf("volume %q: %s", volume, e.Message))
}
