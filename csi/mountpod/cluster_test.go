package mountpod

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// seen collects what a watch tells.
type seen chan string

func (s seen) Changed(pod *corev1.Pod) {
	text := "changed " + pod.Name
	if pod.DeletionTimestamp != nil {
		text = "ending " + pod.Name
	}
	s <- text
}
func (s seen) Gone(pod *corev1.Pod) { s <- "gone " + pod.Name }
func (s seen) Synced()              { s <- "synced" }

func (s seen) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s:
		if got != want {
			t.Fatalf("saw %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("saw nothing, want %q", want)
	}
}

func TestClusterListsOnceAndOnlyThePodsOfItsNode(t *testing.T) {
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "sidemount", UID: "uid-1", Labels: map[string]string{NameLabel: NameValue, DriverLabel: "csi.sidemount.io"},
		}}
	}
	client := fake.NewClientset(pod("old"))
	c := NewCluster(client, "sidemount", "node-1", "csi.sidemount.io")
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(seen, 10), make(chan error, 1)
	go func() { done <- c.Watch(ctx, events) }()
	events.expect(t, "changed old")
	events.expect(t, "synced")
	if _, err := c.Create(ctx, pod("new")); err != nil {
		t.Fatal(err)
	}
	events.expect(t, "changed new")
	if _, err := c.Create(ctx, pod("new")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	if got, err := c.Get(ctx, "new"); err != nil || got.Name != "new" {
		t.Errorf("got %v, %v", got, err)
	}
	if err := c.Delete(ctx, "new", "uid-1", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	events.expect(t, "gone new")
	if err := c.Delete(ctx, "new", "uid-1", 30*time.Second); err != nil {
		t.Errorf("delete of a pod that is gone: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	checkRequests(t, client.Actions())
}

func checkRequests(t *testing.T, actions []k8stesting.Action) {
	t.Helper()
	lists := 0
	for _, a := range actions {
		list, ok := a.(k8stesting.ListAction)
		if !ok {
			continue
		}
		lists++
		fields, labels := list.GetListRestrictions().Fields.String(), list.GetListRestrictions().Labels.String()
		if fields != "spec.nodeName=node-1" || labels != "app.kubernetes.io/name=sidemount-mount,sidemount.io/driver=csi.sidemount.io" || a.GetNamespace() != "sidemount" {
			t.Errorf("list of fields %q, labels %q in namespace %q", fields, labels, a.GetNamespace())
		}
	}
	if lists > 1 {
		t.Errorf("%d lists", lists)
	}
}

func TestDeleteSparesAnotherPodOfTheSameName(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("delete", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), "p", nil)
	})
	if err := NewCluster(client, "sidemount", "node-1", "d").Delete(t.Context(), "p", "uid-1", 30*time.Second); err != nil {
		t.Error(err)
	}
	action := client.Actions()[0].(k8stesting.DeleteActionImpl)
	if uid := action.GetDeleteOptions().Preconditions.UID; uid == nil || *uid != "uid-1" {
		t.Errorf("uid %v", uid)
	}
}
