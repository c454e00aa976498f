package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// A client as the specs know it: how its volumes are described, a word of its process's arguments, and the user of its applications.
type client struct {
	name     string
	describe func(namespace, name string) (*lab.FileSystem, error)
	process  string
	user     int64
}

var (
	juicefs = client{"juicefs", lab.JuiceFS, "sidemount-juicefs", 1000}
	// On a passthrough volume everything belongs to the sidecar's user, because it cannot act as another.
	passthrough = client{"passthrough", lab.Passthrough, "passthrough", 65534}
)

// volume creates a volume of this kind in the namespace.
func (c client) volume(ctx context.Context, ns namespace, name string) *lab.FileSystem {
	GinkgoHelper()
	f, err := c.describe(ns.Name, name)
	Expect(err).NotTo(HaveOccurred())
	Expect(f.Create(ctx, cluster)).To(Succeed())
	return f
}

// pid waits for the client of a pod's sidecar.
func (c client) pid(ctx context.Context, p *corev1.Pod) int {
	GinkgoHelper()
	var pids []int
	Eventually(func() ([]int, error) {
		all, err := lab.Processes(p.UID, c.process)
		pids = nil
		for _, pid := range all {
			status, err := lab.Status(pid)
			// The agent has the client's words among its arguments too; it is the one whose name is its own.
			if err == nil && !(status["Name"] == "sidemount-agent" && isAgent(pid)) {
				pids = append(pids, pid)
			}
		}
		return pids, err
	}).WithContext(ctx).Should(HaveLen(1))
	return pids[0]
}

// isAgent tells whether a process is the first of its container.
func isAgent(pid int) bool {
	status, err := lab.Status(pid)
	if err != nil {
		return false
	}
	ids := strings.Fields(status["NSpid"])
	return len(ids) > 0 && ids[len(ids)-1] == "1"
}

var _ = Describe("A pod with a volume on the virtual node", func() {
	var ns namespace
	BeforeEach(func(ctx SpecContext) { ns = newSpace(ctx) }, NodeTimeout(patience))

	for _, c := range []client{juicefs, passthrough} {
		Context("served by "+c.name, func() {
			It("shares files with another pod, from its first init container on", func(ctx SpecContext) {
				c.volume(ctx, ns, "data")
				ns.Create(ctx, lab.Pod("writer", "cd /data && dd if=/dev/urandom of=big bs=64k count=160 2>/dev/null && mkdir d && mv big d/ && sha256sum d/big > sum && ls",
					lab.User(c.user), lab.Claim("data"), lab.Init("early", "echo early > /data/early")))
				Expect(ns.Succeeds(ctx, "writer")).To(Equal("d\nearly\nsum\n"))
				ns.Create(ctx, lab.Pod("reader", "cd /data && cat early && sha256sum -c sum", lab.User(c.user), lab.Claim("data")))
				Expect(ns.Succeeds(ctx, "reader")).To(Equal("early\nd/big: OK\n"))
			}, SpecTimeout(3*patience))

			It("has a sidecar without any privilege", func(ctx SpecContext) {
				c.volume(ctx, ns, "data")
				p := ns.Create(ctx, lab.Pod("app", forever, lab.User(c.user), lab.Claim("data")))
				ns.Running(ctx, "app")
				for _, pid := range append(agents(p), c.pid(ctx, p)) {
					status, err := lab.Status(pid)
					Expect(err).NotTo(HaveOccurred())
					Expect(strings.Fields(status["Uid"])).To(HaveEach("65534"))
					for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
						Expect(status[set]).To(Equal("0000000000000000"), set)
					}
					Expect(status["NoNewPrivs"]).To(Equal("1"))
					Expect(status["Seccomp"]).To(Equal("2"), "filtered")
					Expect(fmt.Sprintf("/proc/%d/root/dev/fuse", pid)).NotTo(BeAnExistingFile())
				}
				seen := ns.Get(ctx, "app")
				Expect(seen.Spec.InitContainers).To(BeEmpty(), "the pod in the API is as the user wrote it")
				Expect(seen.Status.InitContainerStatuses).To(BeEmpty())
				Expect(seen.Status.ContainerStatuses).To(HaveLen(1))
			}, SpecTimeout(2*patience))

			It("completes as a Job when its application ends", func(ctx SpecContext) {
				c.volume(ctx, ns, "data")
				pod := lab.Pod("unused", "echo done > /data/done", lab.User(c.user), lab.Claim("data"))
				_, err := cluster.Client.BatchV1().Jobs(ns.Name).Create(ctx, &batchv1.Job{
					ObjectMeta: metav1.ObjectMeta{Name: "work"},
					Spec:       batchv1.JobSpec{BackoffLimit: ptr.To(int32(0)), Template: corev1.PodTemplateSpec{Spec: pod.Spec}},
				}, metav1.CreateOptions{})
				Expect(err).NotTo(HaveOccurred())
				Eventually(func(g Gomega) {
					job, err := cluster.Client.BatchV1().Jobs(ns.Name).Get(ctx, "work", metav1.GetOptions{})
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(job.Status.Failed).To(BeZero())
					g.Expect(job.Status.Succeeded).To(Equal(int32(1)))
				}).WithContext(ctx).Should(Succeed())
				pods, err := cluster.Client.CoreV1().Pods(ns.Name).List(ctx, metav1.ListOptions{LabelSelector: "job-name=work"})
				Expect(err).NotTo(HaveOccurred())
				Expect(pods.Items).To(HaveLen(1))
				Eventually(func() ([]int, error) { return lab.Processes(pods.Items[0].UID, "") }).WithContext(ctx).Should(BeEmpty(), "the sidecar ends too")
			}, SpecTimeout(2*patience))

			It("goes on while its client is killed", func(ctx SpecContext) {
				c.volume(ctx, ns, "data")
				// One descriptor is held open over all kills; every line that was written must be there, in order, once.
				p := ns.Create(ctx, lab.Pod("app", `set -e; exec 3>>/data/log; i=0
while [ ! -e /data/stop ]; do i=$((i+1)); echo $i >&3; mkdir /data/d$i; mv /data/d$i /data/e$i; rmdir /data/e$i; done
exec 3>&-; seq $i | cmp - /data/log; echo intact $i`, lab.User(c.user), lab.Claim("data")))
				ns.Running(ctx, "app")
				for range 5 {
					before := c.pid(ctx, p)
					Expect(syscall.Kill(before, syscall.SIGKILL)).To(Succeed())
					Eventually(func() int { return c.pid(ctx, p) }).WithContext(ctx).ShouldNot(Equal(before))
					_, err := ns.Exec(ctx, "app", "stat", "/data/log")
					Expect(err).NotTo(HaveOccurred())
				}
				_, err := ns.Exec(ctx, "app", "touch", "/data/stop")
				Expect(err).NotTo(HaveOccurred())
				Expect(ns.Succeeds(ctx, "app")).To(HavePrefix("intact "))
				Expect(ns.Events(ctx, "app")).To(ContainElement(HavePrefix("ClientRestarted: ")))
			}, SpecTimeout(3*patience))

			It("refuses writes to a read-only volume", func(ctx SpecContext) {
				c.volume(ctx, ns, "data")
				ns.Create(ctx, lab.Pod("writer", "echo kept > /data/f", lab.User(c.user), lab.Claim("data")))
				ns.Succeeds(ctx, "writer")
				pod := lab.Pod("reader", "cat /data/f; touch /data/x 2>&1; true", lab.User(c.user), lab.Claim("data"))
				pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
				ns.Create(ctx, pod)
				Expect(ns.Succeeds(ctx, "reader")).To(And(HavePrefix("kept"), ContainSubstring("Read-only file system")))
			}, SpecTimeout(2*patience))
		})
	}

	It("may have several volumes, and subPaths of them", func(ctx SpecContext) {
		juicefs.volume(ctx, ns, "one")
		passthrough.volume(ctx, ns, "two")
		claim := func(name string) corev1.VolumeSource {
			return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
		}
		ns.Create(ctx, lab.Pod("both", "mkdir /one/sub && echo hi > /one/sub/f && cp /one/sub/f /two/ && cat /two/f",
			lab.User(passthrough.user), lab.Volume("one", "/one", claim("one")), lab.Volume("two", "/two", claim("two"))))
		Expect(ns.Succeeds(ctx, "both")).To(Equal("hi\n"))
		pod := lab.Pod("part", "ls /one", lab.Volume("one", "/one", claim("one")))
		pod.Spec.Containers[0].VolumeMounts[0].SubPath = "sub"
		ns.Create(ctx, pod)
		Expect(ns.Succeeds(ctx, "part")).To(Equal("f\n"))
	}, SpecTimeout(3*patience))

	It("keeps its volume through a restart of the node's process", func(ctx SpecContext) {
		juicefs.volume(ctx, ns, "data")
		p := ns.Create(ctx, lab.Pod("app", `exec 3>>/data/log; i=0; while [ ! -e /data/stop ]; do i=$((i+1)); echo $i >&3; done; exec 3>&-; seq $i | cmp - /data/log && echo intact`, lab.Claim("data")))
		ns.Running(ctx, "app")
		before := juicefs.pid(ctx, p)
		_, err := cluster.Cluster(ctx, "virtual-node", "restart", "--name", cluster.Name, "--node", lab.VirtualNode, "--signal", "KILL")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error {
			_, err := ns.Exec(ctx, "app", "stat", "/data/log")
			return err
		}).WithContext(ctx).Should(Succeed())
		Expect(juicefs.pid(ctx, p)).To(Equal(before), "the client noticed nothing")

		By("and the client may still be killed")
		Expect(syscall.Kill(before, syscall.SIGKILL)).To(Succeed())
		Eventually(func() int { return juicefs.pid(ctx, p) }).WithContext(ctx).ShouldNot(Equal(before))
		_, err = ns.Exec(ctx, "app", "touch", "/data/stop")
		Expect(err).NotTo(HaveOccurred())
		Expect(ns.Succeeds(ctx, "app")).To(Equal("intact\n"))
	}, SpecTimeout(3*patience))

	It("leaves within its grace although its client hangs", func(ctx SpecContext) {
		juicefs.volume(ctx, ns, "data")
		p := ns.Create(ctx, lab.Pod("app", forever, lab.Claim("data")))
		ns.Running(ctx, "app")
		Expect(syscall.Kill(juicefs.pid(ctx, p), syscall.SIGSTOP)).To(Succeed())
		ns.Delete(ctx, "app")
		ns.Gone(ctx, "app")
		Eventually(func() ([]int, error) { return lab.Processes(p.UID, "") }).WithContext(ctx).Should(BeEmpty())
	}, SpecTimeout(2*patience))
})

// agents are the first processes of a pod's sidecars.
func agents(p *corev1.Pod) []int {
	GinkgoHelper()
	all, err := lab.Processes(p.UID, "sidemount-agent run")
	Expect(err).NotTo(HaveOccurred())
	Expect(all).NotTo(BeEmpty())
	return all
}
