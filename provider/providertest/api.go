package providertest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

// API is an API server's view of pods. It behaves as the real one where a node depends on it: deletion is graceful for pods that
// are bound to a node, a UID in a patch or in delete options is a precondition, a patch of the status changes nothing else, and
// every write has a greater resource version.
type API struct {
	*fake.Clientset

	// mu serializes writes and guards version and patches.
	mu      sync.Mutex
	version int
	patches []string
}

// NewAPI returns an API server without pods.
func NewAPI() *API {
	a := &API{Clientset: fake.NewClientset(), version: 1}
	a.PrependReactor("create", "pods", a.create)
	a.PrependReactor("patch", "pods", a.patch)
	a.PrependReactor("delete", "pods", a.delete)
	a.PrependWatchReactor("pods", a.watch)
	return a
}

// Patches returns the patches of pods' status, in order.
func (a *API) Patches() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.patches...)
}

// Change applies change to a pod as another client would, and returns the result.
func (a *API) Change(namespace, name string, change func(*corev1.Pod)) (*corev1.Pod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pod, err := a.get(namespace, name)
	if err != nil {
		return nil, err
	}
	pod = pod.DeepCopy()
	change(pod)
	return pod, a.store(pod)
}

func (a *API) get(namespace, name string) (*corev1.Pod, error) {
	o, err := a.Tracker().Get(podsResource, namespace, name)
	if err != nil {
		return nil, err
	}
	return o.(*corev1.Pod), nil
}

// store writes a pod with a new version. Callers hold mu.
func (a *API) store(pod *corev1.Pod) error {
	a.version++
	pod.ResourceVersion = strconv.Itoa(a.version)
	return a.Tracker().Update(podsResource, pod, pod.Namespace)
}

// watch gives each watcher copies of its own: the first objects of a watch would otherwise be those of the tracker.
func (a *API) watch(action clienttesting.Action) (bool, watch.Interface, error) {
	w, err := a.Tracker().Watch(podsResource, action.GetNamespace(), action.(clienttesting.WatchActionImpl).ListOptions)
	if err != nil {
		return true, nil, err
	}
	return true, watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		e.Object = e.Object.DeepCopyObject()
		return e, true
	}), nil
}

func (a *API) create(action clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pod := action.(clienttesting.CreateAction).GetObject().(*corev1.Pod).DeepCopy()
	a.version++
	pod.ResourceVersion = strconv.Itoa(a.version)
	if pod.UID == "" {
		pod.UID = types.UID(fmt.Sprintf("uid-%d", a.version))
	}
	pod.CreationTimestamp = metav1.NewTime(time.Now()).Rfc3339Copy()
	pod.Generation = 1
	pod.Status.Phase = corev1.PodPending
	return true, pod, a.Tracker().Create(podsResource, pod, pod.Namespace)
}

func (a *API) patch(action clienttesting.Action) (bool, runtime.Object, error) {
	p := action.(clienttesting.PatchAction)
	a.mu.Lock()
	defer a.mu.Unlock()
	pod, err := a.get(p.GetNamespace(), p.GetName())
	if err != nil {
		return true, nil, err
	}
	var precondition struct{ Metadata struct{ UID types.UID } }
	if err := json.Unmarshal(p.GetPatch(), &precondition); err != nil {
		return true, nil, apierrors.NewBadRequest(err.Error())
	}
	if uid := precondition.Metadata.UID; uid != "" && uid != pod.UID {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), pod.Name, fmt.Errorf("precondition failed: UID %s", uid))
	}
	before, err := json.Marshal(pod)
	if err != nil {
		return true, nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, p.GetPatch(), corev1.Pod{})
	if err != nil {
		return true, nil, err
	}
	var patched corev1.Pod
	if err := json.Unmarshal(after, &patched); err != nil {
		return true, nil, err
	}
	a.patches = append(a.patches, string(p.GetPatch()))
	result := pod.DeepCopy()
	result.Status = patched.Status
	return true, result, a.store(result)
}

func (a *API) delete(action clienttesting.Action) (bool, runtime.Object, error) {
	d := action.(clienttesting.DeleteActionImpl)
	a.mu.Lock()
	defer a.mu.Unlock()
	pod, err := a.get(d.GetNamespace(), d.GetName())
	if err != nil {
		return true, nil, err
	}
	options := d.GetDeleteOptions()
	if p := options.Preconditions; p != nil && p.UID != nil && *p.UID != pod.UID {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), pod.Name, fmt.Errorf("precondition failed: UID %s", *p.UID))
	}
	grace := int64(30)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if options.GracePeriodSeconds != nil {
		grace = *options.GracePeriodSeconds
	}
	if grace == 0 || pod.Spec.NodeName == "" {
		return true, nil, a.Tracker().Delete(podsResource, pod.Namespace, pod.Name)
	}
	pod = pod.DeepCopy()
	if pod.DeletionGracePeriodSeconds == nil || grace < *pod.DeletionGracePeriodSeconds {
		t := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second)).Rfc3339Copy()
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &t, &grace
		pod.Generation++
	}
	return true, nil, a.store(pod)
}
