package provider

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/workqueue"
)

const (
	// statusWriters is how many status patches are under way at once.
	statusWriters = 16
	// statusTimeout bounds one attempt.
	statusTimeout = 15 * time.Second
	// statusDelay is how long a change that nobody waits for may wait for the next one.
	statusDelay = 200 * time.Millisecond
)

// statusWriter brings the status of pods to the API server: for each pod at most one patch at a time, the newest status wins, and
// a failure is retried until it succeeds or the pod is gone.
type statusWriter struct {
	client corev1client.PodsGetter
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	// mu guards entries and what they point to.
	mu      sync.Mutex
	entries map[types.UID]*statusEntry
}

// statusEntry is what is known about one pod's status in the API.
type statusEntry struct {
	// api is the newest version of the pod that the API server has shown.
	api *corev1.Pod
	// next is the status to be written; seq numbers the versions.
	next *corev1.PodStatus
	seq  uint64
	// told is called after a version has been written, or with gone when there is no such pod any more. It must not block.
	told func(seq uint64, gone bool)
}

func newStatusWriter(client corev1client.PodsGetter) *statusWriter {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](50*time.Millisecond, 10*time.Second)
	return &statusWriter{
		client:  client,
		queue:   workqueue.NewTypedRateLimitingQueue(limiter),
		entries: make(map[types.UID]*statusEntry),
	}
}

// set asks for next to be written; seq must grow. A change that is not urgent waits a little for others to join it.
func (w *statusWriter) set(pod *corev1.Pod, next *corev1.PodStatus, seq uint64, urgent bool, told func(uint64, bool)) {
	w.mu.Lock()
	e := w.entries[pod.UID]
	if e == nil {
		e = &statusEntry{api: pod}
		w.entries[pod.UID] = e
	}
	e.api = newer(e.api, pod)
	e.next, e.seq, e.told = next, seq, told
	w.mu.Unlock()
	if urgent {
		w.queue.Add(pod.UID)
		return
	}
	w.queue.AddAfter(pod.UID, statusDelay)
}

// differs reports whether the newest version that the API server has shown lacks something of status.
func (w *statusWriter) differs(pod *corev1.Pod, status *corev1.PodStatus) bool {
	w.mu.Lock()
	api := pod
	if e := w.entries[pod.UID]; e != nil {
		api = newer(e.api, pod)
	}
	w.mu.Unlock()
	patch, err := statusPatch(pod.UID, &api.Status, status)
	return err == nil && patch != nil
}

// forget drops what is known about a pod.
func (w *statusWriter) forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, uid)
}

// run writes until ctx ends.
func (w *statusWriter) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range statusWriters {
		workers.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	workers.Wait()
}

func (w *statusWriter) next(ctx context.Context) bool {
	uid, down := w.queue.Get()
	if down {
		return false
	}
	defer w.queue.Done(uid)
	if err := w.write(ctx, uid); err != nil && ctx.Err() == nil {
		log.G(ctx).WithField("uid", uid).WithError(err).Warn("pod status not written, will retry")
		w.queue.AddRateLimited(uid)
		return true
	}
	w.queue.Forget(uid)
	return true
}

// write brings the newest status of one pod to the API server.
func (w *statusWriter) write(ctx context.Context, uid types.UID) error {
	w.mu.Lock()
	e := w.entries[uid]
	if e == nil || e.next == nil {
		w.mu.Unlock()
		return nil
	}
	api, next, seq, told := e.api, e.next, e.seq, e.told
	w.mu.Unlock()

	written, err := w.patch(ctx, api, next)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err) && w.replaced(ctx, api):
		told(seq, true)
		return nil
	case err != nil:
		return err
	}
	w.mu.Lock()
	if e := w.entries[uid]; e != nil && written != nil {
		e.api = newer(e.api, written)
	}
	w.mu.Unlock()
	told(seq, false)
	return nil
}

// patch returns the pod as the API server has it afterwards, nil if there was nothing to change.
func (w *statusWriter) patch(ctx context.Context, api *corev1.Pod, next *corev1.PodStatus) (*corev1.Pod, error) {
	patch, err := statusPatch(api.UID, &api.Status, next)
	if err != nil || patch == nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	written, err := w.client.Pods(api.Namespace).Patch(ctx, api.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("patch status of pod %s/%s: %w", api.Namespace, api.Name, err)
	}
	written.ManagedFields = nil
	return written, nil
}

// replaced reports whether the API server has no pod of that UID any more. A Conflict alone does not say so: the object may have
// been written by others meanwhile.
func (w *statusWriter) replaced(ctx context.Context, api *corev1.Pod) bool {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	live, err := lookUp(ctx, w.client, api.Spec.NodeName, api.Namespace, api.Name)
	if err != nil {
		return apierrors.IsNotFound(err)
	}
	return live.UID != api.UID
}

// newer returns the newer of two versions of a pod.
func newer(a, b *corev1.Pod) *corev1.Pod {
	if order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion); err == nil && order > 0 {
		return a
	}
	return b
}
