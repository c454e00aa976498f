// Package e2e proves on a real cluster what the README promises: real API server, containerd, /dev/fuse and JuiceFS.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// patience is how long anything may take that takes a second on an idle machine.
const patience = 90 * time.Second

var cluster *lab.Lab

func TestEndToEnd(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: a cluster needs root")
	}
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "Sidemount on a real cluster")
}

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

// space is a namespace of one spec and the verbs that the specs speak.
type space struct{ name string }

// newSpace makes a namespace that goes away with the spec, and waits until pods may be created in it.
func newSpace(ctx context.Context) space {
	GinkgoHelper()
	ns, err := cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	s := space{ns.Name}
	DeferCleanup(func(ctx SpecContext) { s.remove(ctx) }, NodeTimeout(3*time.Minute))
	Eventually(func() error {
		_, err := cluster.Client.CoreV1().ServiceAccounts(s.name).Get(ctx, "default", metav1.GetOptions{})
		return err
	}).WithContext(ctx).Should(Succeed())
	return s
}

func (s space) remove(ctx context.Context) {
	GinkgoHelper()
	if CurrentSpecReport().Failed() {
		s.dump(ctx)
	}
	// The namespace controller takes its time; what must not outlive the spec are its pods.
	Expect(cluster.Client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{})).To(Succeed())
	Expect(cluster.Client.CoreV1().Pods(s.name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})).To(Succeed())
	Eventually(func(g Gomega) {
		pods, err := cluster.Client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pods.Items).To(BeEmpty())
	}).WithContext(ctx).Should(Succeed(), "every pod must go")
	pvs, err := cluster.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	for _, pv := range pvs.Items {
		if strings.HasPrefix(pv.Name, s.name+"-") {
			Expect(cluster.Client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{})).To(Succeed())
		}
	}
}

// dump prints what a person would look at first.
func (s space) dump(ctx context.Context) {
	for _, args := range [][]string{{"get", "pods", "-o", "yaml"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, err := cluster.Kubectl(ctx, append(args, "-n", s.name)...)
		fmt.Fprintln(GinkgoWriter, strings.Join(args, " "), err, "\n", out)
	}
}

func (s space) create(ctx context.Context, p *corev1.Pod) *corev1.Pod {
	GinkgoHelper()
	created, err := cluster.Client.CoreV1().Pods(s.name).Create(ctx, p, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return created
}

func (s space) get(ctx context.Context, name string) *corev1.Pod {
	GinkgoHelper()
	p, err := cluster.Client.CoreV1().Pods(s.name).Get(ctx, name, metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	return p
}

func (s space) reaches(ctx context.Context, name string, phase corev1.PodPhase) *corev1.Pod {
	GinkgoHelper()
	var p *corev1.Pod
	Eventually(func(g Gomega) {
		p = s.get(ctx, name)
		g.Expect(p.Status.Phase).To(Equal(phase), p.Status.Message)
	}).WithContext(ctx).Should(Succeed())
	return p
}

func (s space) running(ctx context.Context, name string) *corev1.Pod {
	GinkgoHelper()
	return s.reaches(ctx, name, corev1.PodRunning)
}

// succeeds waits for a pod's end and returns what it printed.
func (s space) succeeds(ctx context.Context, name string) string {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		p := s.get(ctx, name)
		if p.Status.Phase == corev1.PodFailed {
			out, _ := cluster.Kubectl(ctx, "logs", "-n", s.name, name)
			StopTrying("the pod failed").Attach("log", out).Now()
		}
		g.Expect(p.Status.Phase).To(Equal(corev1.PodSucceeded))
	}).WithContext(ctx).Should(Succeed())
	return s.logs(ctx, name)
}

func (s space) logs(ctx context.Context, name string, args ...string) string {
	GinkgoHelper()
	out, err := cluster.Kubectl(ctx, append([]string{"logs", "-n", s.name, name}, args...)...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

func (s space) exec(ctx context.Context, name string, argv ...string) (string, error) {
	return cluster.Kubectl(ctx, append([]string{"exec", "-n", s.name, name, "--"}, argv...)...)
}

func (s space) delete(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(cluster.Client.CoreV1().Pods(s.name).Delete(ctx, name, metav1.DeleteOptions{})).To(Succeed())
}

func (s space) gone(ctx context.Context, name string) {
	GinkgoHelper()
	Eventually(func() bool {
		_, err := cluster.Client.CoreV1().Pods(s.name).Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}).WithContext(ctx).Should(BeTrue(), "the pod must leave the API")
}

// events returns "Reason: message" of each event about a pod.
func (s space) events(ctx context.Context, name string) []string {
	GinkgoHelper()
	list, err := cluster.Client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	Expect(err).NotTo(HaveOccurred())
	var all []string
	for _, e := range list.Items {
		all = append(all, e.Reason+": "+e.Message)
	}
	return all
}
