package e2e

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/sidecar/session"
	"github.com/sidemount/sidemount/test/lab"
)

// restless has requests under way all the time, from several processes. Each holds one file open.
const restless = `for i in 1 2 3 4; do (exec 3>>/data/$i; while :; do echo x >&3 || exit 1; done) & done
while :; do ls /data >/dev/null; done`

// cutOffAfter is what a node may need for a pod beyond its grace: the runtime is given a while to kill what waits for a volume, and only then
// is the volume taken away (2 s and 20 s, see package provider). The rest is for a machine with other things to do.
const cutOffAfter = 2*time.Second + 20*time.Second + 40*time.Second

var _ = Describe("When something of a volume hangs or dies", func() {
	var ns namespace
	BeforeEach(func(ctx SpecContext) { ns = newSpace(ctx) }, NodeTimeout(patience))

	for _, c := range []client{juicefs, passthrough} {
		DescribeTable("a pod with a "+c.name+" volume ends within its grace and leaves no mount",
			func(ctx SpecContext, freeze func(context.Context, client, *corev1.Pod)) {
				c.volume(ctx, ns, "data")
				ns.Create(ctx, lab.Pod("app", restless, lab.User(c.user), lab.Claim("data")))
				p := ns.Running(ctx, "app")
				Eventually(func() error {
					_, err := ns.Exec(ctx, "app", "test", "-s", "/data/4")
					return err
				}).WithContext(ctx).Should(Succeed(), "requests are under way")
				freeze(ctx, c, p)
				start := time.Now()
				ns.Delete(ctx, "app")
				ns.Gone(ctx, "app")
				took := time.Since(start)
				AddReportEntry("seconds from delete to gone", took.Seconds())
				Expect(took).To(BeNumerically("<", time.Duration(*p.Spec.TerminationGracePeriodSeconds)*time.Second+cutOffAfter))
				Eventually(func() ([]int, error) { return lab.Processes(p.UID, "") }).WithContext(ctx).Should(BeEmpty())
				Eventually(mounts).WithArguments(ctx, p).WithContext(ctx).Should(BeEmpty())
			},
			Entry("although its client is stopped", SpecTimeout(3*patience), func(ctx context.Context, c client, p *corev1.Pod) {
				Expect(syscall.Kill(c.pid(ctx, p), syscall.SIGSTOP)).To(Succeed())
			}),
			Entry("although its agent is stopped", SpecTimeout(3*patience), func(_ context.Context, _ client, p *corev1.Pod) {
				for _, pid := range agents(p) {
					Expect(syscall.Kill(pid, syscall.SIGSTOP)).To(Succeed())
				}
			}),
			Entry("although both are stopped", SpecTimeout(3*patience), func(ctx context.Context, c client, p *corev1.Pod) {
				// The agent first, or it would see what happens to its client.
				for _, pid := range append(agents(p), c.pid(ctx, p)) {
					Expect(syscall.Kill(pid, syscall.SIGSTOP)).To(Succeed())
				}
			}),
		)

		It("a running container of a "+c.name+" volume gets it back after agent and node's process have died together, without its open files", func(ctx SpecContext) {
			c.volume(ctx, ns, "data")
			// Where the kernel itself reads and writes the files of a passthrough volume, an open one goes on; a directory of the dead mount does not.
			ns.Create(ctx, lab.Pod("app", `cd /data; exec 3>>open; echo before > f
while echo x >&3 && echo y > step; do :; done 2>/tmp/why; echo "lost: $(cat /tmp/why)"
`+forever, lab.User(c.user), lab.Claim("data")))
			p := ns.Running(ctx, "app")
			Eventually(func() error {
				_, err := ns.Exec(ctx, "app", "test", "-s", "/data/open")
				return err
			}).WithContext(ctx).Should(Succeed())

			sidecars := agents(p)
			_, err := cluster.Cluster(ctx, "virtual-node", "stop", "--name", cluster.Name, "--node", lab.VirtualNode, "--signal", "KILL")
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(func(ctx SpecContext) {
				if CurrentSpecReport().Failed() {
					// It may run already.
					_, _ = cluster.Cluster(ctx, "virtual-node", "start", "--name", cluster.Name, "--node", lab.VirtualNode)
				}
			}, NodeTimeout(patience))
			for _, pid := range sidecars {
				Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
			}
			_, err = cluster.Cluster(ctx, "virtual-node", "start", "--name", cluster.Name, "--node", lab.VirtualNode)
			Expect(err).NotTo(HaveOccurred())

			start := time.Now()
			Eventually(func() (string, error) { return ns.Exec(ctx, "app", "cat", "/data/f") }).WithContext(ctx).Should(Equal("before\n"))
			AddReportEntry("seconds from the node's start to a volume that works", time.Since(start).Seconds())
			_, err = ns.Exec(ctx, "app", "sh", "-c", "echo after > /data/g")
			Expect(err).NotTo(HaveOccurred())
			Eventually(ns.Logs).WithArguments(ctx, "app").WithContext(ctx).Should(
				MatchRegexp("lost: .*(connected|connection abort|Input/output error)"), "what is open returns errors and does not hang")
			Eventually(ns.Events).WithArguments(ctx, "app").WithContext(ctx).Should(ContainElement(And(
				HavePrefix("SessionLost: "), ContainSubstring(`volume "data"`))))
			Eventually(ns.condition).WithArguments(ctx, "app", session.VolumesReady).WithContext(ctx).Should(And(
				HaveField("Status", corev1.ConditionTrue), HaveField("Reason", "OpenFilesLost")))
			now := ns.Get(ctx, "app")
			Expect(now.Status.ContainerStatuses[0].RestartCount).To(BeZero())

			By("and nothing of either mount is left when it ends")
			ns.Delete(ctx, "app")
			ns.Gone(ctx, "app")
			Eventually(mounts).WithArguments(ctx, p).WithContext(ctx).Should(BeEmpty())
		}, SpecTimeout(4*patience))
	}

	It("an Event tells why a client was replaced and how long requests waited", func(ctx SpecContext) {
		juicefs.volume(ctx, ns, "data")
		p := ns.Create(ctx, lab.Pod("app", restless, lab.Claim("data")))
		ns.Running(ctx, "app")
		Expect(syscall.Kill(juicefs.pid(ctx, p), syscall.SIGKILL)).To(Succeed())
		Eventually(ns.Events).WithArguments(ctx, "app").WithContext(ctx).Should(ContainElement(
			MatchRegexp(`^ClientRestarted: volume "data": .*\(signal: killed\); requests waited for [0-9.]+m?s$`)))
		Eventually(ns.condition).WithArguments(ctx, "app", session.VolumesReady).WithContext(ctx).Should(And(
			HaveField("Status", corev1.ConditionTrue), HaveField("Reason", "VolumesServed")))
	}, SpecTimeout(2*patience))

	It("the command replaces a client below a pod that goes on", func(ctx SpecContext) {
		juicefs.volume(ctx, ns, "data")
		p := ns.Create(ctx, lab.Pod("app", `set -e; exec 3>>/data/log; i=0
while [ ! -e /data/stop ]; do i=$((i+1)); echo $i >&3; done; exec 3>&-; seq $i | cmp - /data/log; echo intact`, lab.Claim("data")))
		ns.Running(ctx, "app")
		before := juicefs.pid(ctx, p)
		out, err := exec.CommandContext(ctx, cluster.Binary("sidemount"),
			"client", "upgrade", "app", "-n", ns.Name, "--kubeconfig", cluster.Kubeconfig).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(string(out)).To(ContainSubstring("the client was"))
		Eventually(func() int { return juicefs.pid(ctx, p) }).WithContext(ctx).ShouldNot(Equal(before))
		Expect(ns.Events(ctx, "app")).To(ContainElement(HavePrefix("ClientUpgraded: ")))
		Expect(ns.condition(ctx, "app", session.ClientUpgraded)).To(HaveField("Status", corev1.ConditionTrue))
		_, err = ns.Exec(ctx, "app", "touch", "/data/stop")
		Expect(err).NotTo(HaveOccurred())
		Expect(ns.Succeeds(ctx, "app")).To(Equal("intact\n"))

		By("and says in one line what it cannot do")
		out, err = exec.CommandContext(ctx, cluster.Binary("sidemount"),
			"client", "upgrade", "app", "-n", ns.Name, "--kubeconfig", cluster.Kubeconfig).CombinedOutput()
		Expect(err).To(HaveOccurred())
		Expect(strings.TrimSpace(string(out))).To(And(ContainSubstring("is Succeeded"), Not(ContainSubstring("\n"))))
	}, SpecTimeout(3*patience))

	It("a client that would serve another file system than is mounted does not come in", func(ctx SpecContext) {
		juicefs.volume(ctx, ns, "data")
		p := ns.Create(ctx, lab.Pod("app", `set -e; echo kept > /data/file; while [ ! -e /data/stop ]; do cat /data/file > /dev/null; done; cat /data/file`, lab.Claim("data")))
		ns.Running(ctx, "app")
		before := juicefs.pid(ctx, p)
		secrets := cluster.Client.CoreV1().Secrets(ns.Name)
		secret, err := secrets.Get(ctx, "data", metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		mounted := string(secret.Data["metaurl"])
		secret.Data["metaurl"] = []byte(strings.Replace(mounted, "meta.db", "other.db", 1))
		secret, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
		out, err := exec.CommandContext(ctx, cluster.Binary("sidemount"),
			"client", "upgrade", "app", "-n", ns.Name, "--kubeconfig", cluster.Kubeconfig).CombinedOutput()
		Expect(err).To(HaveOccurred())
		Expect(string(out)).To(ContainSubstring("must not name another one"))
		Expect(ns.Events(ctx, "app")).To(ContainElement(And(HavePrefix("ClientUpgradeFailed: "), ContainSubstring("must not name another one"))))
		Expect(juicefs.pid(ctx, p)).To(Equal(before))

		By("nor when the client dies")
		Expect(syscall.Kill(before, syscall.SIGKILL)).To(Succeed())
		_, err = ns.Exec(ctx, "app", "touch", "/data/stop")
		Expect(err).NotTo(HaveOccurred())
		Expect(ns.Succeeds(ctx, "app")).To(Equal("kept\n"))
		secret.Data["metaurl"] = []byte(mounted)
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
	}, SpecTimeout(3*patience))
})

// mounts are the lines of the virtual node's mount table that are about a pod.
func mounts(ctx context.Context, p *corev1.Pod) ([]string, error) {
	table, err := cluster.OnNode(ctx, lab.VirtualNode, "cat", "/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(table) {
		if strings.Contains(line, string(p.UID)) {
			found = append(found, line)
		}
	}
	return found, nil
}

// condition returns a pod's condition, an empty one if it has none of this type.
func (s namespace) condition(ctx context.Context, name string, kind corev1.PodConditionType) corev1.PodCondition {
	GinkgoHelper()
	for _, c := range s.Get(ctx, name).Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}
