package sidecars

import (
	"context"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
	"github.com/sidemount/sidemount/test/space"
)

// loop appends to an open file for ever and says so when it could not.
const loop = `trap 'exit 0' TERM; exec 3>>/data/log; i=0; while :; do i=$((i+1)); echo $i >&3 || echo FAILED; echo $i > /data/last || echo FAILED; sleep 0.05; done`

// fuse are the FUSE mounts of the node, without those of other suites on this machine.
func fuse(ctx context.Context) string {
	GinkgoHelper()
	mounts, err := cluster.OnNode(ctx, lab.OrdinaryNode, "cat", "/proc/self/mountinfo")
	Expect(err).NotTo(HaveOccurred())
	var found []string
	for line := range strings.Lines(mounts) {
		if strings.Contains(line, " - fuse") && strings.Contains(line, "sidemount:") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

var _ = Describe("A pod that brings its own sidecar", func() {
	var ns namespace
	BeforeEach(func(ctx SpecContext) { ns = newSpace(ctx, tenant) }, NodeTimeout(patience))

	It("runs as a Job without Mount Pod and Secret, and ends", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		template := pod("", "cat /data/early && dd if=/dev/zero of=/data/big bs=64k count=64 2>/dev/null && ls /data", "data",
			lab.Init("early", "echo hello > /data/early"))
		_, err := cluster.Client.BatchV1().Jobs(ns.Name).Create(ctx, &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "job"},
			Spec:       batchv1.JobSpec{BackoffLimit: ptr.To(int32(0)), Template: corev1.PodTemplateSpec{Spec: template.Spec}},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) {
			job, err := cluster.Client.BatchV1().Jobs(ns.Name).Get(ctx, "job", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(job.Status.Failed).To(BeZero())
			g.Expect(job.Status.Succeeded).To(BeEquivalentTo(1))
		}).WithContext(ctx).Should(Succeed())
		out, err := cluster.Kubectl(ctx, "logs", "-n", ns.Name, "job/job", "-c", "app")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(Equal("hello\nbig\nearly\n"))
		By("nothing but the sidecar has served it")
		Expect(chart.MountPods(ctx)).To(BeEmpty())
		secrets, err := cluster.Client.CoreV1().Secrets(ns.Name).List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(secrets.Items).To(BeEmpty())
		By("nothing is left on the node")
		Eventually(func() string { return fuse(ctx) }).WithContext(ctx).Should(BeEmpty())
	}, NodeTimeout(5*time.Minute))

	It("is admitted where Pod Security is restricted", func(ctx SpecContext) {
		strict := newSpace(ctx, restricted)
		f, err := lab.JuiceFS(strict.Name, "data")
		Expect(err).NotTo(HaveOccurred())
		delete(f.PV.Spec.CSI.VolumeAttributes, "juicefs/host-path")
		f.Secret = nil
		Expect(f.Create(ctx, cluster)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			Expect(cluster.Client.CoreV1().PersistentVolumes().Delete(ctx, f.PV.Name, metav1.DeleteOptions{})).To(Succeed())
		}, NodeTimeout(patience))
		p, err := cluster.Client.CoreV1().Pods(strict.Name).Create(ctx, pod("app", "true", "data"), metav1.CreateOptions{DryRun: []string{"All"}})
		Expect(err).NotTo(HaveOccurred())
		Expect(p.Spec.InitContainers).To(ContainElement(HaveField("Name", "sidemount-data")))
	}, NodeTimeout(patience))

	It("does not notice that its client, its sidecar or the node service is killed, and starts again with what it wrote", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		p, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("app", loop, "data"), metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		ns.progresses(ctx)
		for _, victim := range []struct{ word, without string }{{"sidemount-juicefs", "sidemount-agent"}, {"sidemount-agent run", ""}} {
			By("kill " + victim.word)
			before := one(p, victim.word, victim.without)
			Expect(syscall.Kill(before, syscall.SIGKILL)).To(Succeed())
			Eventually(func() []int { return space.Processes(p, victim.word, victim.without) }).WithContext(ctx).Should(And(HaveLen(1), Not(ContainElement(before))))
			ns.progresses(ctx)
		}
		Eventually(ns.Events).WithArguments(ctx, "app").WithContext(ctx).Should(ContainElement(HavePrefix(`ClientRestarted: volume "data": `)))
		By("replace the node service")
		_, err = cluster.Kubectl(ctx, "delete", "pod", "-n", chart.Namespace, "-l", "app.kubernetes.io/component=node", "--wait")
		Expect(err).NotTo(HaveOccurred())
		ns.progresses(ctx)
		_, err = cluster.Kubectl(ctx, "rollout", "status", "-n", chart.Namespace, "daemonset", "--timeout=90s")
		Expect(err).NotTo(HaveOccurred())
		ns.progresses(ctx)
		By("the client has no privilege")
		status, err := lab.Status(one(p, "sidemount-juicefs", "sidemount-agent"))
		Expect(err).NotTo(HaveOccurred())
		Expect(status).To(And(HaveKeyWithValue("CapEff", "0000000000000000"), HaveKeyWithValue("NoNewPrivs", "1"), HaveKeyWithValue("Seccomp", "2")))
		out, err := cluster.Kubectl(ctx, "logs", "-n", ns.Name, "app", "-c", "app")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(BeEmpty())
		Expect(chart.MountPods(ctx)).To(BeEmpty())
		By("the pod goes, and with it everything on the node")
		_, err = cluster.Kubectl(ctx, "delete", "pod", "-n", ns.Name, "app", "--wait")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() string { return fuse(ctx) }).WithContext(ctx).Should(BeEmpty())
		By("another pod finds what was written last")
		_, err = cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("next", `[ "$(tail -n 1 /data/log)" -ge "$(cat /data/last)" ] && echo whole`, "data"), metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		ns.prints(ctx, "next", "whole\n")
	}, NodeTimeout(8*time.Minute))

	It("gives the session to no container that injection has not made", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		injected, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("model", "true", "data"), metav1.CreateOptions{DryRun: []string{"All"}})
		Expect(err).NotTo(HaveOccurred())
		thief := pod("thief", "sleep 1000", "data")
		thief.Labels = map[string]string{"sidemount.io/inject": "false"}
		thief.Spec.Volumes, thief.Spec.InitContainers = injected.Spec.Volumes, injected.Spec.InitContainers
		thief.Spec.Containers[0].VolumeMounts = append(thief.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "sidemount-session-data", MountPath: "/stolen"})
		_, err = cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, thief, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() (string, error) {
			return cluster.Kubectl(ctx, "get", "events", "-n", ns.Name, "--field-selector=involvedObject.name=thief", "-o=jsonpath={.items[*].message}")
		}).WithContext(ctx).Should(ContainSubstring("container app mounts sidemount-session-data"))
		p, err := cluster.Client.CoreV1().Pods(ns.Name).Get(ctx, "thief", metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(p.Status.Phase).To(Equal(corev1.PodPending))
		Expect(fuse(ctx)).To(BeEmpty())
	}, NodeTimeout(4*time.Minute))

	It("stands beside pods of the node that use Mount Pods", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		_, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("shared", "echo shared > /data/shared && cat /data/shared", "data", func(p *corev1.Pod) {
			p.Labels = map[string]string{"sidemount.io/inject": "false"}
		}), metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		ns.prints(ctx, "shared", "shared\n")
		_, err = cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("own", "cat /data/shared", "data"), metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		ns.prints(ctx, "own", "shared\n")
	}, NodeTimeout(5*time.Minute))
})

// prints waits until a pod has succeeded and compares what its application printed.
func (s namespace) prints(ctx context.Context, name, want string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		p, err := cluster.Client.CoreV1().Pods(s.Name).Get(ctx, name, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		if p.Status.Phase == corev1.PodFailed {
			StopTrying("the pod failed").Now()
		}
		g.Expect(p.Status.Phase).To(Equal(corev1.PodSucceeded))
	}).WithContext(ctx).Should(Succeed())
	out, err := cluster.Kubectl(ctx, "logs", "-n", s.Name, name, "-c", "app")
	Expect(err).NotTo(HaveOccurred())
	Expect(out).To(Equal(want))
}

// progresses waits until the application has written something new.
func (s namespace) progresses(ctx context.Context) {
	GinkgoHelper()
	read := func() string {
		out, err := cluster.Kubectl(ctx, "exec", "-n", s.Name, "app", "-c", "app", "--", "cat", "/data/last")
		if err != nil {
			return ""
		}
		return out
	}
	var before string
	Eventually(func() string { before = read(); return before }).WithContext(ctx).ShouldNot(BeEmpty())
	Eventually(read).WithContext(ctx).ShouldNot(Or(BeEmpty(), Equal(before)))
}

// one is the only process of a pod with a word in its arguments.
func one(p *corev1.Pod, word, without string) int {
	GinkgoHelper()
	var pids []int
	Eventually(func() []int { pids = space.Processes(p, word, without); return pids }).Should(HaveLen(1))
	return pids[0]
}
