package provider

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Preparer turns the API's pod into the pod that runs: volumes resolved, sessions opened, sidecars injected. The API's pod is
// never changed, and nothing of what was added shows in its status.
type Preparer interface {
	// Prepare returns the pod that runs. It is idempotent: it is called again after a change of the pod, after Engine.Again
	// and after a restart of this process. A sidecar that it does not return any more is ended. An error, best a *PrepareError, keeps the pod Pending and is retried.
	Prepare(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error)
	// Started says whether an injected sidecar does its work; later containers wait for it, as for a startup probe. The
	// failure, if not empty, is shown to the user while the pod waits. It must not block. pod is the API's.
	Started(pod *corev1.Pod, container string) (started bool, failure string)
	// Owes says whether an injected sidecar that has ended is needed again, although its pod is being ended: somebody may wait for it, or it may have left
	// something unwritten. It must not block. pod is the API's.
	Owes(pod *corev1.Pod, container string) bool
	// Conditions are those that the pod's status shall have besides a node's own. It must not block. pod is the API's.
	Conditions(pod *corev1.Pod) []corev1.PodCondition
	// Release gives back what Prepare opened, after all containers have ended. It is idempotent; grace bounds what may
	// still have to be written. It is called with a grace of 0 while containers still run only if they cannot be ended:
	// then what they wait for must fail.
	Release(ctx context.Context, pod *corev1.Pod, grace time.Duration) error
}

// Unprepared is the Preparer of a node that adds nothing to its pods.
type Unprepared struct{}

var _ Preparer = Unprepared{}

// Prepare returns the pod as it is.
func (Unprepared) Prepare(_ context.Context, pod *corev1.Pod) (*corev1.Pod, error) { return pod, nil }

// Started says that there is nothing to wait for.
func (Unprepared) Started(*corev1.Pod, string) (bool, string) { return true, "" }

// Owes says that nothing is left to do.
func (Unprepared) Owes(*corev1.Pod, string) bool { return false }

// Conditions has none.
func (Unprepared) Conditions(*corev1.Pod) []corev1.PodCondition { return nil }

// Release has nothing to give back.
func (Unprepared) Release(context.Context, *corev1.Pod, time.Duration) error { return nil }
