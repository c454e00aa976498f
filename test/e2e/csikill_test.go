package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// busy holds one file open for writing and one for reading until /data/stop is there, and fails at the first call that fails, or at the
// first line that is not what it was.
const busy = `set -e; exec 3>>/data/log 4</data/log; i=0
while [ ! -e /data/stop ]; do
  i=$((i+1)); echo $i >&3
  read -r line <&4 || { echo "line $i is not there, the file has $(wc -c </data/log) bytes"; exit 1; }
  [ "$line" = $i ] || { echo "line $i is '$line'"; exit 1; }
  mkdir /data/d$i; echo $i >/data/d$i/f; mv /data/d$i /data/e$i; rm /data/e$i/f; rmdir /data/e$i
done
exec 3>&- 4<&-; seq $i | cmp - /data/log; echo intact $i`

// busyPod is a pod that runs busy on the ordinary node.
type busyPod struct {
	namespace
	name, handle string
}

func startBusy(ctx context.Context, ns namespace, name string, options ...lab.PodOption) busyPod {
	GinkgoHelper()
	f := driver.volume(ns, name)
	Expect(f.Create(ctx, cluster)).To(Succeed())
	ns.Create(ctx, lab.Pod(name, busy, append(options, lab.Claim(name), lab.OnOrdinaryNode)...))
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			out, err := cluster.Kubectl(ctx, "logs", "-n", ns.Name, name)
			fmt.Fprintln(GinkgoWriter, "application:", out, err)
		}
	}, NodeTimeout(patience))
	ns.Running(ctx, name)
	return busyPod{ns, name, f.PV.Name}
}

// goesOn waits until the application has written more than it had.
func (p busyPod) goesOn(ctx context.Context) {
	GinkgoHelper()
	before := p.last(ctx)
	Eventually(func() int { return p.last(ctx) }).WithContext(ctx).Should(BeNumerically(">", before))
	Expect(p.Get(ctx, p.name).Status.ContainerStatuses[0].RestartCount).To(BeZero())
}

// last is the last line that the application has written.
func (p busyPod) last(ctx context.Context) int {
	GinkgoHelper()
	if phase := p.Get(ctx, p.name).Status.Phase; phase != corev1.PodRunning {
		StopTrying("the application has ended").Attach("log", p.Logs(ctx, p.name)).Now()
	}
	out, err := p.Exec(ctx, p.name, "tail", "-n", "1", "/data/log")
	Expect(err).NotTo(HaveOccurred())
	n, err := strconv.Atoi(strings.TrimSpace("0" + out))
	Expect(err).NotTo(HaveOccurred())
	return n
}

func (p busyPod) intact(ctx context.Context) {
	GinkgoHelper()
	_, err := p.Exec(ctx, p.name, "touch", "/data/stop")
	Expect(err).NotTo(HaveOccurred())
	Expect(p.Succeeds(ctx, p.name)).To(HavePrefix("intact "))
}

var _ = Describe("An application on an ordinary node that holds files open", func() {
	var ns namespace
	onOrdinaryNodes(&ns)

	It("goes on while its client is killed", func(ctx SpecContext) {
		app := startBusy(ctx, ns, "data")
		m := driver.mountPod(ctx, app.handle)
		for range 3 {
			before := juicefs.pid(ctx, m)
			Expect(syscall.Kill(before, syscall.SIGKILL)).To(Succeed())
			Eventually(func() int { return juicefs.pid(ctx, m) }).WithContext(ctx).ShouldNot(Equal(before))
			app.goesOn(ctx)
		}
		Eventually(ns.Events).WithArguments(ctx, "data").WithContext(ctx).Should(ContainElement(HavePrefix("ClientRestarted: ")))
		app.intact(ctx)
	}, SpecTimeout(3*patience))

	It("goes on while its Mount Pod is deleted, gently or not, or its agent is killed", func(ctx SpecContext) {
		app := startBusy(ctx, ns, "data")
		for _, grace := range []*int64{nil, ptr.To(int64(0))} {
			m := driver.mountPod(ctx, app.handle)
			Expect(cluster.Client.CoreV1().Pods(m.Namespace).Delete(ctx, m.Name, metav1.DeleteOptions{GracePeriodSeconds: grace})).To(Succeed())
			Eventually(func() string { return driver.mountPod(ctx, app.handle).Name }).WithContext(ctx).ShouldNot(Equal(m.Name))
			app.goesOn(ctx)
		}
		m := driver.mountPod(ctx, app.handle)
		agent := agents(m)[0]
		Expect(syscall.Kill(agent, syscall.SIGKILL)).To(Succeed())
		Eventually(func() ([]int, error) { return lab.Processes(m.UID, "sidemount-agent run") }).WithContext(ctx).ShouldNot(Or(BeEmpty(), ContainElement(agent)))
		app.goesOn(ctx)
		Expect(driver.mountPod(ctx, app.handle).Name).To(Equal(m.Name), "a container that ends is started again in its pod")
		app.intact(ctx)
	}, SpecTimeout(4*patience))

	It("goes on while the driver's pod is deleted, and its client is killed meanwhile", func(ctx SpecContext) {
		app := startBusy(ctx, ns, "data")
		m := driver.mountPod(ctx, app.handle)
		before := driver.nodePod(ctx)
		Expect(cluster.Client.CoreV1().Pods(before.Namespace).Delete(ctx, before.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})).To(Succeed())
		pid := juicefs.pid(ctx, m)
		Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
		Eventually(func() int { return juicefs.pid(ctx, m) }).WithContext(ctx).ShouldNot(Equal(pid))
		app.goesOn(ctx)
		Expect(driver.nodePod(ctx).UID).NotTo(Equal(before.UID))
		app.goesOn(ctx)
		Expect(driver.mountPod(ctx, app.handle).UID).To(Equal(m.UID), "the new driver takes the Mount Pod over")

		By("what the new driver has taken over may still be killed, and joined")
		ns.Create(ctx, lab.Pod("late", "test -s /data/log", lab.Claim("data"), lab.OnOrdinaryNode))
		ns.Succeeds(ctx, "late")
		Expect(cluster.Client.CoreV1().Pods(m.Namespace).Delete(ctx, m.Name, metav1.DeleteOptions{})).To(Succeed())
		Eventually(func() string { return driver.mountPod(ctx, app.handle).Name }).WithContext(ctx).ShouldNot(Equal(m.Name))
		app.goesOn(ctx)
		app.intact(ctx)
	}, SpecTimeout(4*patience))

	It("goes on in a drain until it has ended in order", func(ctx SpecContext) {
		// After its SIGTERM it works on for two seconds.
		app := startBusy(ctx, ns, "data", lab.Change(func(p *corev1.Pod) {
			p.Labels = map[string]string{"app.kubernetes.io/name": "drained"}
			p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(30))
			p.Spec.Containers[0].Command[2] = "trap 'sleep 2; touch /data/stop' TERM; " + busy + " > /data/result; sync"
		}))
		driver.mountPod(ctx, app.handle)
		_, err := cluster.Kubectl(ctx, "drain", lab.OrdinaryNode, "--ignore-daemonsets", "--force", "--delete-emptydir-data",
			"--pod-selector", "app.kubernetes.io/name in (sidemount-mount, drained)", "--timeout=80s")
		defer func() {
			_, err := cluster.Kubectl(ctx, "uncordon", lab.OrdinaryNode)
			Expect(err).NotTo(HaveOccurred())
		}()
		Expect(err).NotTo(HaveOccurred())
		ns.Gone(ctx, "data")
		Eventually(driver.mountPods).WithArguments(ctx, app.handle).WithContext(ctx).Should(BeEmpty())
		_, err = cluster.Kubectl(ctx, "uncordon", lab.OrdinaryNode)
		Expect(err).NotTo(HaveOccurred())
		ns.Create(ctx, lab.Pod("reader", "cat /data/result", lab.Claim("data"), lab.OnOrdinaryNode))
		Expect(ns.Succeeds(ctx, "reader")).To(HavePrefix("intact "))
	}, SpecTimeout(4*patience))

	It("is healed when nobody has kept its session", func(ctx SpecContext) {
		f := driver.volume(ns, "data")
		Expect(f.Create(ctx, cluster)).To(Succeed())
		ns.Create(ctx, lab.Pod("app", "echo started >> /data/starts; while cat /data/starts > /dev/null; do sleep 0.1; done; exit 1",
			lab.Claim("data"), lab.OnOrdinaryNode, lab.RestartPolicy(corev1.RestartPolicyAlways)))
		ns.Running(ctx, "app")
		m := driver.mountPod(ctx, f.PV.Name)
		By("the driver and the agent die at the same time, and with them the last descriptors of the FUSE connection")
		holders := agents(m)
		service, err := lab.Processes(driver.nodePod(ctx).UID, "csi node")
		Expect(err).NotTo(HaveOccurred())
		Expect(service).To(HaveLen(1))
		for _, pid := range append(service, holders...) {
			Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
		}
		Eventually(func(g Gomega) {
			g.Expect(ns.Get(ctx, "app").Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", 0))
			out, err := ns.Exec(ctx, "app", "grep", "-c", "started", "/data/starts")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strconv.Atoi(strings.TrimSpace(out))).To(BeNumerically(">=", 2))
		}).WithContext(ctx).WithTimeout(2 * patience).WithPolling(time.Second).Should(Succeed())
		driver.nodePod(ctx)
	}, SpecTimeout(4*patience))
})

var _ = Describe("A pod on an ordinary node", func() {
	var ns namespace
	onOrdinaryNodes(&ns)

	It("leaves although its client hangs, and the next one has the volume again", func(ctx SpecContext) {
		f := driver.volume(ns, "data")
		Expect(f.Create(ctx, cluster)).To(Succeed())
		ns.Create(ctx, lab.Pod("app", "echo kept > /data/file; "+forever, lab.Claim("data"), lab.OnOrdinaryNode))
		ns.Running(ctx, "app")
		m := driver.mountPod(ctx, f.PV.Name)
		Eventually(func() error { _, err := ns.Exec(ctx, "app", "test", "-s", "/data/file"); return err }).WithContext(ctx).Should(Succeed())
		Expect(syscall.Kill(juicefs.pid(ctx, m), syscall.SIGSTOP)).To(Succeed())
		began := time.Now()
		ns.Delete(ctx, "app")
		ns.Gone(ctx, "app")
		Expect(time.Since(began)).To(BeNumerically("<", time.Minute))
		ns.Create(ctx, lab.Pod("next", "cat /data/file", lab.Claim("data"), lab.OnOrdinaryNode))
		Expect(ns.Succeeds(ctx, "next")).To(Equal("kept\n"))
		driver.released(ctx, f.PV.Name)
	}, SpecTimeout(4*patience))
})
