package object

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// TestUnderTheNodeAuthorizer talks to a real API server as a node: SIDEMOUNT_TEST_KUBECONFIG is an administrator's,
// SIDEMOUNT_TEST_NODE_KUBECONFIG that of system:node:<SIDEMOUNT_TEST_NODE>, which no kubelet may serve.
func TestUnderTheNodeAuthorizer(t *testing.T) {
	node := os.Getenv("SIDEMOUNT_TEST_NODE")
	if node == "" {
		t.Skip("needs a cluster: SIDEMOUNT_TEST_NODE, SIDEMOUNT_TEST_KUBECONFIG and SIDEMOUNT_TEST_NODE_KUBECONFIG are not set")
	}
	admin, asNode := connect(t, "SIDEMOUNT_TEST_KUBECONFIG"), connect(t, "SIDEMOUNT_TEST_NODE_KUBECONFIG")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	namespace := newNamespace(ctx, t, admin)
	secrets := admin.CoreV1().Secrets(namespace)
	for _, name := range []string{"mine", "strangers"} {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"k": "one"}}
		if _, err := secrets.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	store, err := New(Options{Client: asNode, Wait: patience})
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan types.UID, 100)
	store.OnChange(func(uid types.UID) { changes <- uid })
	ended := make(chan error, 1)
	running, stop := context.WithCancel(context.Background())
	go func() { ended <- store.Run(running) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	pod := newPod(ctx, t, admin, namespace, node)
	begun := time.Now()
	store.Acquire(pod)
	s, err := store.Secret(ctx, namespace, "mine")
	if err != nil || string(s.Data["k"]) != "one" {
		t.Fatalf("got %v, %v", s, err)
	}
	t.Logf("first answer after %s", time.Since(begun))
	if _, err := store.Secret(ctx, namespace, "later"); !apierrors.IsNotFound(err) {
		t.Errorf("missing: got %v", err)
	}
	if _, err := store.Secret(ctx, namespace, "strangers"); !apierrors.IsForbidden(err) {
		t.Errorf("another pod's: got %v, want Forbidden", err)
	}

	later := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "later"}, StringData: map[string]string{"k": "here"}}
	begun = time.Now()
	if _, err := secrets.Create(ctx, later, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitChange(ctx, t, changes, pod.UID)
	t.Logf("appearance known after %s", time.Since(begun))
	if s, err = store.Secret(ctx, namespace, "later"); err != nil || string(s.Data["k"]) != "here" {
		t.Errorf("got %v, %v", s, err)
	}
	if err := secrets.Delete(ctx, "later", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitChange(ctx, t, changes, pod.UID)
	if _, err := store.Secret(ctx, namespace, "later"); !apierrors.IsNotFound(err) {
		t.Errorf("after deletion: got %v", err)
	}
	if _, err := store.ConfigMap(ctx, namespace, "kube-root-ca.crt"); err != nil {
		t.Errorf("the cluster's certificate: %v", err)
	}
	testToken(ctx, t, asNode, pod)
}

func testToken(ctx context.Context, t *testing.T, asNode kubernetes.Interface, pod *corev1.Pod) {
	tokens, err := NewTokens(TokensOptions{Client: asNode})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokens.Token(ctx, pod, "", 607)
	if err != nil || tok.Value == "" {
		t.Fatalf("got %v, %v", tok, err)
	}
	if left := time.Until(tok.Refresh); left < 400*time.Second || left > 490*time.Second {
		t.Errorf("to be refreshed in %s", left)
	}
	other := pod.DeepCopy()
	other.UID = "00000000-0000-0000-0000-000000000000"
	if _, err := tokens.Token(ctx, other, "", 607); err == nil {
		t.Error("a token for a pod that is not")
	} else {
		t.Logf("pod of another UID: %v", err)
	}
}

func connect(t *testing.T, variable string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(variable))
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return client
}

func newNamespace(ctx context.Context, t *testing.T, admin kubernetes.Interface) string {
	t.Helper()
	ns, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "objects-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := admin.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	// Admission refuses pods until the controllers have made these.
	eventually(t, "service account and certificate of the namespace", func() bool {
		_, errAccount := admin.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		_, errCert := admin.CoreV1().ConfigMaps(ns.Name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return errAccount == nil && errCert == nil
	})
	return ns.Name
}

func newPod(ctx context.Context, t *testing.T, admin kubernetes.Interface, namespace, node string) *corev1.Pod {
	t.Helper()
	pod := podWith("", "mine", "later")
	pod.Name, pod.Namespace, pod.UID = "user", namespace, ""
	pod.Spec.NodeName = node
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "localhost/pause:1"}}
	pod, err := admin.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var now int64
		err := admin.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(fmt.Errorf("delete pod: %w", err))
		}
	})
	return pod
}

func awaitChange(ctx context.Context, t *testing.T, changes <-chan types.UID, want types.UID) {
	t.Helper()
	select {
	case uid := <-changes:
		if uid != want {
			t.Errorf("change of %s, want %s", uid, want)
		}
	case <-ctx.Done():
		t.Fatal("the change was not reported")
	}
}
