package node

import (
	"context"
	"errors"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// switchHealth can be turned off and on while the node runs.
type switchHealth struct {
	mu  sync.Mutex
	err error
}

func (h *switchHealth) Health(context.Context) (error, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err, nil
}

func (h *switchHealth) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// newAPI is a fake API server that gives UIDs to what is created, as the real one does.
func newAPI() *fake.Clientset {
	client := fake.NewClientset()
	client.PrependReactor("create", "*", func(action ktesting.Action) (bool, runtime.Object, error) {
		object := action.(ktesting.CreateAction).GetObject()
		object.(metav1.Object).SetUID(uuid.NewUUID())
		return false, nil, nil
	})
	return client
}

var _ = Describe("A node", func() {
	var (
		client *fake.Clientset
		health *switchHealth
		node   *Node
		stop   func()
	)

	BeforeEach(func() {
		client, health = newAPI(), &switchHealth{}
	})

	start := func() {
		var err error
		node, err = New(Options{
			Object: testObject("virtual-1"), Host: testHost(), Client: client, Health: health, Dir: GinkgoT().TempDir(),
			CSIDrivers:     []storagev1.CSINodeDriver{{Name: "csi.sidemount.io", NodeID: "virtual-1"}},
			Thresholds:     Thresholds{DiskFraction: 1e-9, InodesFraction: 1e-9, MemoryBytes: 1, Processes: 1},
			CheckInterval:  20 * time.Millisecond,
			StatusInterval: 50 * time.Millisecond,
			LeaseDuration:  4 * time.Second,
		})
		Expect(err).NotTo(HaveOccurred())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- node.Run(ctx) }()
		stop = func() {
			cancel()
			Eventually(done, "10s").Should(Receive(BeNil()))
		}
		DeferCleanup(func() { cancel() })
		Eventually(node.Ready(), "10s").Should(BeClosed())
	}

	get := func(g Gomega) *corev1.Node {
		object, err := client.CoreV1().Nodes().Get(context.Background(), "virtual-1", metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		return object
	}

	ready := func(g Gomega) corev1.NodeCondition {
		for _, c := range get(g).Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c
			}
		}
		g.Expect("the Ready condition").To(BeEmpty(), "is missing")
		return corev1.NodeCondition{}
	}

	It("registers itself, with a lease and a csinode", func() {
		start()
		defer stop()
		Expect(get(Default).Spec.Taints).To(ConsistOf(DefaultTaint()))
		Expect(ready(Default).Status).To(Equal(corev1.ConditionTrue))
		Eventually(func(g Gomega) {
			lease, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(context.Background(), "virtual-1", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(*lease.Spec.HolderIdentity).To(Equal("virtual-1"))
			g.Expect(lease.OwnerReferences).To(HaveLen(1))
			g.Expect(lease.OwnerReferences[0].UID).To(Equal(get(g).UID))
		}, "10s").Should(Succeed())
		Eventually(func(g Gomega) {
			csinode, err := client.StorageV1().CSINodes().Get(context.Background(), "virtual-1", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(csinode.OwnerReferences[0].UID).To(Equal(get(g).UID))
			g.Expect(csinode.Spec.Drivers).To(HaveLen(1))
		}, "10s").Should(Succeed())
	})

	It("tells in its Ready condition that the runtime is down, and that it is back", func() {
		start()
		defer stop()
		health.set(errors.New("container runtime is down"))
		Eventually(func(g Gomega) {
			g.Expect(ready(g).Status).To(Equal(corev1.ConditionFalse))
			g.Expect(ready(g).Message).To(ContainSubstring("container runtime is down"))
		}, "10s").Should(Succeed())
		Expect(node.Ping(context.Background())).To(Succeed())
		health.set(nil)
		Eventually(func(g Gomega) { g.Expect(ready(g).Status).To(Equal(corev1.ConditionTrue)) }, "10s").Should(Succeed())
	})

	It("comes back after somebody has deleted it, with a csinode of its own", func() {
		start()
		defer stop()
		var before types.UID
		Eventually(func(g Gomega) {
			csinode, err := client.StorageV1().CSINodes().Get(context.Background(), "virtual-1", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			before = csinode.OwnerReferences[0].UID
		}, "10s").Should(Succeed())
		Expect(client.CoreV1().Nodes().Delete(context.Background(), "virtual-1", metav1.DeleteOptions{})).To(Succeed())
		Eventually(func(g Gomega) { g.Expect(get(g).UID).NotTo(Equal(before)) }, "10s").Should(Succeed())
		Eventually(func(g Gomega) {
			csinode, err := client.StorageV1().CSINodes().Get(context.Background(), "virtual-1", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(csinode.OwnerReferences[0].UID).To(Equal(get(g).UID))
		}, "10s").Should(Succeed())
	})

	It("stays as it is in the API when the process ends", func() {
		start()
		before := get(Default)
		stop()
		Expect(get(Default).UID).To(Equal(before.UID))
		Expect(ready(Default).Status).To(Equal(corev1.ConditionTrue))
	})

	It("keeps the times of its conditions over a restart", func() {
		start()
		stop()
		before := get(Default)
		for i := range before.Status.Conditions {
			before.Status.Conditions[i].LastTransitionTime = metav1.NewTime(time.Unix(1000, 0))
		}
		_, err := client.CoreV1().Nodes().UpdateStatus(context.Background(), before, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
		start()
		stop()
		Expect(ready(Default).LastTransitionTime.Unix()).To(BeEquivalentTo(1000))
	})

	It("registers as soon as the API answers", func() {
		var mu sync.Mutex
		failures := 1
		client.PrependReactor("create", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			if failures > 0 {
				failures--
				return true, nil, apierrors.NewServiceUnavailable("not yet")
			}
			return false, nil, nil
		})
		start()
		stop()
		Expect(ready(Default).Status).To(Equal(corev1.ConditionTrue))
	})

	It("keeps the drivers that others have registered", func() {
		start()
		defer stop()
		var csinode *storagev1.CSINode
		Eventually(func(g Gomega) {
			var err error
			csinode, err = client.StorageV1().CSINodes().Get(context.Background(), "virtual-1", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
		}, "10s").Should(Succeed())
		csinode.Spec.Drivers = []storagev1.CSINodeDriver{{Name: "other.example.com", NodeID: "x"}}
		_, err := client.StorageV1().CSINodes().Update(context.Background(), csinode, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(node.ensureCSINode(context.Background(), get(Default))).To(Succeed())
		csinode, err = client.StorageV1().CSINodes().Get(context.Background(), "virtual-1", metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(csinode.Spec.Drivers).To(ConsistOf(HaveField("Name", "other.example.com"), HaveField("Name", "csi.sidemount.io")))
	})

	It("no longer claims to be alive when its checks hang", func() {
		var err error
		node, err = New(Options{Object: testObject("virtual-1"), Host: testHost(), Client: client, Health: health, Dir: "/", CheckInterval: time.Millisecond, CheckTimeout: time.Millisecond})
		Expect(err).NotTo(HaveOccurred())
		node.check(context.Background())
		Expect(node.Ping(context.Background())).To(Or(Succeed(), MatchError(ErrStale)))
		Eventually(func() error { return node.Ping(context.Background()) }, "5s").Should(MatchError(ErrStale))
	})

	It("refuses options that the API would refuse", func() {
		_, err := New(Options{Object: Object{Name: "x"}, Client: client, Health: health, Dir: "/"})
		Expect(err).To(MatchError(ErrInvalid))
		_, err = New(Options{Object: testObject("virtual-1")})
		Expect(err).To(MatchError(ErrInvalid))
	})
})
