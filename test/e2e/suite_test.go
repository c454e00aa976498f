// Package e2e proves on a real cluster what the README promises: real API server, containerd, /dev/fuse and JuiceFS.
package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
	"github.com/sidemount/sidemount/test/space"
)

// patience is how long anything may take that takes a second on an idle machine.
const patience = 90 * time.Second

var cluster *lab.Lab

func TestEndToEnd(t *testing.T) { space.Run(t, "Sidemount on a real cluster", patience) }

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	cluster, err = lab.Start(ctx, "e2e", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		Expect(cluster.Stop(ctx)).To(Succeed())
		Expect(lab.RemoveData("e2e-")).To(Succeed())
	}, NodeTimeout(3*time.Minute))
	Eventually(func(g Gomega) {
		node, err := cluster.Client.CoreV1().Nodes().Get(ctx, lab.VirtualNode, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(nodeReady(node)).To(BeTrue())
	}).WithContext(ctx).Should(Succeed())
}, NodeTimeout(10*time.Minute))

var _ = AfterSuite(func(ctx SpecContext) {
	if cluster == nil {
		return
	}
	By("nothing of the pods is left on the virtual node")
	Eventually(func(g Gomega) {
		mounts, err := cluster.OnNode(ctx, lab.VirtualNode, "cat", "/proc/self/mountinfo")
		g.Expect(err).NotTo(HaveOccurred())
		for line := range strings.Lines(mounts) {
			g.Expect(line).NotTo(MatchRegexp(` - fuse(\.\S+)? `), "a FUSE mount is left")
			g.Expect(line).NotTo(ContainSubstring("/volumes/kubernetes.io~"), "a volume is left")
		}
	}).WithContext(ctx).Should(Succeed())
	By("nothing of the driver is left on the ordinary node")
	driver.remove(ctx)
}, NodeTimeout(5*time.Minute))

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// namespace is a namespace of one spec.
type namespace struct{ space.Space }

func newSpace(ctx context.Context) namespace {
	GinkgoHelper()
	return namespace{space.New(ctx, cluster, "e2e-", nil)}
}
