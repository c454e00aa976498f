// Package space is a namespace of one spec on a real cluster, and the verbs that the end-to-end suites speak. It asserts with Gomega and
// works in Ginkgo's specs only; package lab asserts nothing. What only one suite says is that suite's.
package space

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// Run runs a suite that needs a cluster. patience is how long anything may take that takes a second on an idle machine.
func Run(t *testing.T, title string, patience time.Duration) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: a cluster needs root")
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	gomega.SetDefaultEventuallyTimeout(patience)
	gomega.SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	gomega.EnforceDefaultTimeoutsWhenUsingContexts()
	ginkgo.RunSpecs(t, title)
}

// Space is a namespace of one spec.
type Space struct {
	Name string

	lab  *lab.Lab
	dump [][]string
}

// New makes a namespace that goes away with the spec, and waits until pods may be created in it. Its name begins with prefix. After a failure the
// output of further kubectl commands is printed, each given by its arguments.
func New(ctx context.Context, l *lab.Lab, prefix string, labels map[string]string, dump ...[]string) Space {
	ginkgo.GinkgoHelper()
	ns, err := l.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix, Labels: labels},
	}, metav1.CreateOptions{})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	s := Space{ns.Name, l, dump}
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) { s.remove(ctx) }, ginkgo.NodeTimeout(3*time.Minute))
	gomega.Eventually(func() error {
		_, err := l.Client.CoreV1().ServiceAccounts(s.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	}).WithContext(ctx).Should(gomega.Succeed())
	return s
}

func (s Space) remove(ctx context.Context) {
	ginkgo.GinkgoHelper()
	if ginkgo.CurrentSpecReport().Failed() {
		s.explain(ctx)
	}
	// The namespace controller takes its time; what must not outlive the spec are its pods.
	api := s.lab.Client.CoreV1()
	gomega.Expect(api.Namespaces().Delete(ctx, s.Name, metav1.DeleteOptions{})).To(gomega.Succeed())
	gomega.Expect(api.Pods(s.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})).To(gomega.Succeed())
	gomega.Eventually(func(g gomega.Gomega) {
		pods, err := api.Pods(s.Name).List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(pods.Items).To(gomega.BeEmpty())
	}).WithContext(ctx).Should(gomega.Succeed(), "every pod must go")
	pvs, err := api.PersistentVolumes().List(ctx, metav1.ListOptions{})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	for _, pv := range pvs.Items {
		if strings.HasPrefix(pv.Name, s.Name+"-") {
			gomega.Expect(api.PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{})).To(gomega.Succeed())
		}
	}
}

// explain prints what a person would look at first.
func (s Space) explain(ctx context.Context) {
	all := append([][]string{
		{"get", "pods", "-o", "yaml", "-n", s.Name}, {"get", "events", "--sort-by=.lastTimestamp", "-n", s.Name},
	}, s.dump...)
	for _, args := range all {
		out, err := s.lab.Kubectl(ctx, args...)
		fmt.Fprintln(ginkgo.GinkgoWriter, strings.Join(args, " "), err, "\n", out)
	}
}

// Volume makes a JuiceFS volume whose Secret is in another namespace than the pods.
func (s Space) Volume(ctx context.Context, name, secretNamespace string) *lab.FileSystem {
	ginkgo.GinkgoHelper()
	f, err := lab.JuiceFS(s.Name, name)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	f.Secret.Namespace, f.Secret.Name = secretNamespace, s.Name+"-"+name
	f.PV.Spec.CSI.NodePublishSecretRef = &corev1.SecretReference{Namespace: secretNamespace, Name: f.Secret.Name}
	gomega.Expect(f.Create(ctx, s.lab)).To(gomega.Succeed())
	return f
}

// Create makes a pod.
func (s Space) Create(ctx context.Context, p *corev1.Pod) *corev1.Pod {
	ginkgo.GinkgoHelper()
	created, err := s.lab.Client.CoreV1().Pods(s.Name).Create(ctx, p, metav1.CreateOptions{})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return created
}

// Get returns a pod as it is.
func (s Space) Get(ctx context.Context, name string) *corev1.Pod {
	ginkgo.GinkgoHelper()
	p, err := s.lab.Client.CoreV1().Pods(s.Name).Get(ctx, name, metav1.GetOptions{})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return p
}

// Running waits until a pod is.
func (s Space) Running(ctx context.Context, name string) *corev1.Pod {
	ginkgo.GinkgoHelper()
	return s.Reaches(ctx, name, corev1.PodRunning)
}

// Reaches waits until a pod has a phase.
func (s Space) Reaches(ctx context.Context, name string, phase corev1.PodPhase) *corev1.Pod {
	ginkgo.GinkgoHelper()
	var p *corev1.Pod
	gomega.Eventually(func(g gomega.Gomega) {
		p = s.Get(ctx, name)
		g.Expect(p.Status.Phase).To(gomega.Equal(phase), p.Status.Message)
	}).WithContext(ctx).Should(gomega.Succeed())
	return p
}

// Ready waits until all containers of a pod are.
func (s Space) Ready(ctx context.Context, name string) {
	ginkgo.GinkgoHelper()
	gomega.Eventually(func(g gomega.Gomega) {
		g.Expect(s.Get(ctx, name).Status.Conditions).To(gomega.ContainElement(gomega.And(gomega.HaveField("Type", corev1.PodReady), gomega.HaveField("Status", corev1.ConditionTrue))))
	}).WithContext(ctx).Should(gomega.Succeed())
}

// Succeeds waits for a pod's end and returns what its application printed.
func (s Space) Succeeds(ctx context.Context, name string) string {
	ginkgo.GinkgoHelper()
	gomega.Eventually(func(g gomega.Gomega) {
		p := s.Get(ctx, name)
		if p.Status.Phase == corev1.PodFailed {
			out, _ := s.lab.Kubectl(ctx, "logs", "-n", s.Name, name)
			gomega.StopTrying("the pod failed").Attach("log", out).Now()
		}
		g.Expect(p.Status.Phase).To(gomega.Equal(corev1.PodSucceeded))
	}).WithContext(ctx).Should(gomega.Succeed())
	return s.Logs(ctx, name)
}

// Logs returns what the first container of a pod has printed, or what further arguments of kubectl ask for.
func (s Space) Logs(ctx context.Context, name string, args ...string) string {
	ginkgo.GinkgoHelper()
	out, err := s.lab.Kubectl(ctx, append([]string{"logs", "-n", s.Name, name}, args...)...)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return out
}

// Exec runs a program in the first container of a pod and returns what it prints.
func (s Space) Exec(ctx context.Context, name string, argv ...string) (string, error) {
	return s.lab.Kubectl(ctx, append([]string{"exec", "-n", s.Name, name, "--"}, argv...)...)
}

// Delete asks for the end of a pod.
func (s Space) Delete(ctx context.Context, name string) {
	ginkgo.GinkgoHelper()
	gomega.Expect(s.lab.Client.CoreV1().Pods(s.Name).Delete(ctx, name, metav1.DeleteOptions{})).To(gomega.Succeed())
}

// Gone waits until a pod has left the API.
func (s Space) Gone(ctx context.Context, name string) {
	ginkgo.GinkgoHelper()
	gomega.Eventually(func() bool {
		_, err := s.lab.Client.CoreV1().Pods(s.Name).Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}).WithContext(ctx).Should(gomega.BeTrue(), "the pod must leave the API")
}

// Events returns "Reason: message" of each event about a pod.
func (s Space) Events(ctx context.Context, name string) []string {
	ginkgo.GinkgoHelper()
	list, err := s.lab.Client.CoreV1().Events(s.Name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	var all []string
	for _, e := range list.Items {
		all = append(all, e.Reason+": "+e.Message)
	}
	return all
}

// Processes are the pids of a pod's processes with a word in their arguments, without those that have another.
func Processes(p *corev1.Pod, word, without string) []int {
	ginkgo.GinkgoHelper()
	all, err := lab.Processes(p.UID, word)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	if without == "" {
		return all
	}
	not, err := lab.Processes(p.UID, without)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	others := map[int]bool{}
	for _, pid := range not {
		others[pid] = true
	}
	var left []int
	for _, pid := range all {
		if !others[pid] {
			left = append(left, pid)
		}
	}
	return left
}
