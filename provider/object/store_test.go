package object

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

const patience = 10 * time.Second

func secret(name, version, value string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
		Data:       map[string][]byte{"k": []byte(value)},
	}
}

func podWith(uid types.UID, secrets ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod-" + string(uid), UID: uid}}
	for _, s := range secrets {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: s, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s}}})
	}
	return pod
}

// fixture is a store on a fake API server.
type fixture struct {
	client  *fake.Clientset
	store   *Store
	changes chan types.UID
}

func start(t *testing.T, client *fake.Clientset, o Options) *fixture {
	t.Helper()
	o.Client = client
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{client: client, store: s, changes: make(chan types.UID, 100)}
	s.OnChange(func(uid types.UID) { f.changes <- uid })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end: a watch is left")
		}
	})
	return f
}

// watching waits until the API server has n watches of secrets; before that, the fake one would lose events.
func (f *fixture) watching(t *testing.T, n int) {
	t.Helper()
	eventually(t, "watches", func() bool { return f.count("watch") >= n })
}

func (f *fixture) count(verb string) int {
	n := 0
	for _, a := range f.client.Actions() {
		if a.GetVerb() == verb {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (f *fixture) changed(t *testing.T, want ...types.UID) {
	t.Helper()
	var got []types.UID
	for range want {
		select {
		case uid := <-f.changes:
			got = append(got, uid)
		case <-time.After(patience):
			t.Fatalf("changes: got %v, want %v", got, want)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("changes: got %v, want %v", got, want)
	}
}

func (f *fixture) value(t *testing.T, name string) string {
	t.Helper()
	s, err := f.store.Secret(t.Context(), "ns", name)
	if err != nil {
		t.Fatal(err)
	}
	return string(s.Data["k"])
}

func TestAcquiredObjectIsReadOnceAndFollowed(t *testing.T) {
	f := start(t, fake.NewClientset(secret("a", "1", "one"), secret("b", "1", "other")), Options{})
	f.store.Acquire(podWith("u1", "a"))
	f.store.Acquire(podWith("u2", "a"))
	if got := f.value(t, "a"); got != "one" {
		t.Errorf("got %q", got)
	}
	f.watching(t, 1)
	gets := f.count("get")
	for range 10 {
		f.value(t, "a")
	}
	if got := f.count("get"); got != gets || gets != 1 {
		t.Errorf("%d gets, then %d: want one", gets, got)
	}
	update(t, f.client, secret("a", "2", "two"))
	f.changed(t, "u1", "u2")
	if got := f.value(t, "a"); got != "two" {
		t.Errorf("after the change: got %q", got)
	}
	if n := f.count("watch"); n != 1 {
		t.Errorf("%d watches for one object", n)
	}
	o, err := f.store.Secret(t.Context(), "ns", "a")
	if err != nil || o.ManagedFields != nil {
		t.Errorf("managed fields are kept: %v, %v", o.ManagedFields, err)
	}
}

func update(t *testing.T, client *fake.Clientset, s *corev1.Secret) {
	t.Helper()
	if _, err := client.CoreV1().Secrets("ns").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAbsenceIsKnownAndItsEndReported(t *testing.T) {
	f := start(t, fake.NewClientset(), Options{})
	f.store.Acquire(podWith("u1", "late"))
	f.watching(t, 1)
	for range 3 {
		_, err := f.store.Secret(t.Context(), "ns", "late")
		if !apierrors.IsNotFound(err) || err.Error() != `secret "late" not found` {
			t.Fatalf("got %v", err)
		}
	}
	if got := f.count("get"); got != 1 {
		t.Errorf("%d gets", got)
	}
	if _, err := f.client.CoreV1().Secrets("ns").Create(t.Context(), secret("late", "5", "here"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.changed(t, "u1")
	if got := f.value(t, "late"); got != "here" {
		t.Errorf("got %q", got)
	}
	if err := f.client.CoreV1().Secrets("ns").Delete(t.Context(), "late", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.changed(t, "u1")
	if _, err := f.store.Secret(t.Context(), "ns", "late"); !apierrors.IsNotFound(err) {
		t.Errorf("after deletion: got %v", err)
	}
}

func TestReleaseEndsTheWatchWithItsLastUser(t *testing.T) {
	client := fake.NewClientset(secret("a", "1", "one"))
	open := trackWatches(client)
	f := start(t, client, Options{})
	f.store.Acquire(podWith("u1", "a"))
	f.store.Acquire(podWith("u2", "a"))
	eventually(t, "watch", func() bool { return open.Load() == 1 })
	f.store.Release("u1")
	f.store.Release("unknown")
	if got := f.value(t, "a"); got != "one" || open.Load() != 1 {
		t.Errorf("got %q, %d watches", got, open.Load())
	}
	f.store.Release("u2")
	eventually(t, "end of the watch", func() bool { return open.Load() == 0 })
	// Now it is read from the API.
	gets := f.count("get")
	if got := f.value(t, "a"); got != "one" || f.count("get") != gets+1 {
		t.Errorf("got %q", got)
	}
	if _, err := f.store.ConfigMap(t.Context(), "ns", "no"); err == nil || err.Error() != `configmap "no" not found` {
		t.Errorf("got %v", err)
	}
}

// trackWatches counts the watches that are open.
func trackWatches(client *fake.Clientset) *atomic.Int32 {
	open := &atomic.Int32{}
	client.PrependWatchReactor("*", func(ktesting.Action) (bool, watch.Interface, error) {
		open.Add(1)
		return true, &counted{FakeWatcher: watch.NewFake(), open: open}, nil
	})
	return open
}

type counted struct {
	*watch.FakeWatcher
	open *atomic.Int32
	once sync.Once
}

func (c *counted) Stop() {
	c.once.Do(func() { c.open.Add(-1) })
	c.FakeWatcher.Stop()
}

func TestAcquireFollowsAChangedPod(t *testing.T) {
	client := fake.NewClientset(secret("a", "1", "one"), secret("b", "1", "two"))
	open := trackWatches(client)
	f := start(t, client, Options{})
	f.store.Acquire(podWith("u1", "a"))
	eventually(t, "watch of a", func() bool { return open.Load() == 1 })
	f.store.Acquire(podWith("u1", "a", "b"))
	eventually(t, "watch of b", func() bool { return open.Load() == 2 })
	f.store.Acquire(podWith("u1", "b"))
	eventually(t, "end of the watch of a", func() bool { return open.Load() == 1 })
	if got := f.count("get"); got != 2 {
		t.Errorf("%d gets, want one per object", got)
	}
}

func TestImmutableObjectIsNotWatched(t *testing.T) {
	fixed := secret("a", "1", "one")
	fixed.Immutable = new(bool)
	*fixed.Immutable = true
	f := start(t, fake.NewClientset(fixed), Options{})
	f.store.Acquire(podWith("u1", "a"))
	if got := f.value(t, "a"); got != "one" {
		t.Errorf("got %q", got)
	}
	f.store.running.Wait() // its goroutine has ended
	if n := f.count("watch") + f.count("list"); n != 0 {
		t.Errorf("%d lists and watches", n)
	}
	if got := f.value(t, "a"); got != "one" || f.count("get") != 1 {
		t.Errorf("got %q with %d gets", got, f.count("get"))
	}
}

// The Node authorizer learns that a pod is on the node a little later than the node does.
func TestForbiddenIsRetriedUntilAllowed(t *testing.T) {
	client := fake.NewClientset(secret("a", "1", "one"))
	var refusals atomic.Int32
	client.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		if refusals.Add(1) <= 3 {
			return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "a", errors.New("no relationship found"))
		}
		return false, nil, nil
	})
	f := start(t, client, Options{Wait: patience})
	f.store.Acquire(podWith("u1", "a"))
	if got := f.value(t, "a"); got != "one" {
		t.Errorf("got %q", got)
	}
}

func TestWhoGaveUpWaitingIsToldLater(t *testing.T) {
	client := fake.NewClientset(secret("a", "1", "one"))
	var allowed atomic.Bool
	client.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		if !allowed.Load() {
			return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "a", errors.New("no relationship found"))
		}
		return false, nil, nil
	})
	f := start(t, client, Options{Wait: 50 * time.Millisecond})
	f.store.Acquire(podWith("u1", "a"))
	_, err := f.store.Secret(t.Context(), "ns", "a")
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "sync secret ns/a") {
		t.Fatalf("got %v", err)
	}
	allowed.Store(true)
	f.changed(t, "u1")
	if got := f.value(t, "a"); got != "one" {
		t.Errorf("got %q", got)
	}
}

func TestBrokenWatchIsResumedWithoutLoss(t *testing.T) {
	client := fake.NewClientset(secret("a", "1", "one"))
	watches := make(chan *watch.FakeWatcher, 10)
	client.PrependWatchReactor("secrets", func(ktesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFake()
		watches <- w
		return true, w, nil
	})
	f := start(t, client, Options{})
	f.store.Acquire(podWith("u1", "a"))
	first := <-watches
	// The object changes while nobody watches.
	if err := client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("secrets"), secret("a", "7", "two"), "ns"); err != nil {
		t.Fatal(err)
	}
	first.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
	f.changed(t, "u1")
	if got := f.value(t, "a"); got != "two" {
		t.Errorf("got %q", got)
	}
	second := <-watches
	second.Modify(secret("stranger", "8", "not mine"))
	second.Modify(secret("a", "9", "three"))
	f.changed(t, "u1")
	if got := f.value(t, "a"); got != "three" {
		t.Errorf("got %q", got)
	}
	// A server that ends its watch in order is watched again from where it was, without a new list.
	lists := f.count("list")
	second.Stop()
	third := <-watches
	third.Modify(secret("a", "10", "four"))
	f.changed(t, "u1")
	if got := f.count("list"); got != lists {
		t.Errorf("%d lists, want %d", got, lists)
	}
}

func TestSelectorsNameOneObject(t *testing.T) {
	f := start(t, fake.NewClientset(secret("a", "1", "one")), Options{})
	f.store.Acquire(podWith("u1", "a"))
	f.watching(t, 1)
	for _, action := range f.client.Actions() {
		var selector string
		switch a := action.(type) {
		case ktesting.ListAction:
			selector = a.GetListRestrictions().Fields.String()
		case ktesting.WatchAction:
			selector = a.GetWatchRestrictions().Fields.String()
		default:
			continue
		}
		if selector != "metadata.name=a" || action.GetNamespace() != "ns" {
			t.Errorf("%s of %s/%q: the Node authorizer refuses that", action.GetVerb(), action.GetNamespace(), selector)
		}
	}
}

func TestReferences(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}
	name := func(n string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: n} }
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{name("pull"), name("")}
	pod.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("from")}}}}}
	pod.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "plain"},
		{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("key")}}},
		{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: name("key")}}}}}}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("debug")}}}}}}
	pod.Spec.Volumes = []corev1.Volume{
		{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name("vol")}}},
		{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: name("proj")}}, {ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name("proj")}}}}}},
	}
	want := []string{"configmap/from", "configmap/key", "configmap/proj", "configmap/vol", "secret/debug", "secret/key", "secret/proj", "secret/pull"}
	var got []string
	for ref := range references(pod) {
		if ref.namespace != "ns" {
			t.Errorf("%v is of another namespace", ref)
		}
		got = append(got, string(ref.kind)+"/"+ref.name)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStoppedStoreRefuses(t *testing.T) {
	s, err := New(Options{Client: fake.NewClientset()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	s.Acquire(podWith("u1", "a"))
	if _, err := s.Secret(t.Context(), "ns", "a"); !errors.Is(err, ErrStopped) {
		t.Errorf("got %v", err)
	}
	if _, err := New(Options{}); !errors.Is(err, ErrOptions) {
		t.Errorf("no client: got %v", err)
	}
}
