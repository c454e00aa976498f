package provider_test

import (
	"errors"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/provider/providertest"
)

var _ = Describe("a pod on the node", func() {
	var w *world
	BeforeEach(func() { w = newWorld() })

	It("runs, is ready and has its addresses", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionTrue))
		s := w.pod(pod).Status
		Expect(s.HostIP).To(Equal("10.0.0.1"))
		Expect(s.PodIP).To(HavePrefix("10.88.0."))
		Expect(s.StartTime).NotTo(BeNil())
		Expect(s.ContainerStatuses).To(HaveLen(1))
		Expect(s.ContainerStatuses[0].ContainerID).To(HavePrefix("containerd://"))
		Expect(*s.ContainerStatuses[0].Started).To(BeTrue())
		Expect(w.said.All()).To(ContainElements("web Normal Created Container created", "web Normal Started Container started"))
		Expect(w.said.All()).NotTo(ContainElement(ContainSubstring("Provider")))
	})

	It("is removed from the API only after its containers have ended and its volumes are gone", func() {
		w.runtime.Behave("server", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, ptr.To(int64(2)))
		Consistently(w.exists(pod), 1500*time.Millisecond).Should(BeTrue())
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(w.volumes.Count()).To(Equal(0))
		Eventually(func() int { return len(w.runtime.Has(pod.UID).Sandboxes) }).Should(Equal(0))
		Eventually(w.engine.Views).Should(BeEmpty())
		Expect(w.said.All()).To(ContainElement("web Normal Killing Stopping container app"))
	})

	It("is not removed from the API while its volumes cannot be torn down", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.volumes.Fail(errors.New("volume is busy"))
		w.delete(pod, ptr.To(int64(0+1)))
		Consistently(w.exists(pod), 1200*time.Millisecond).Should(BeTrue())
		Expect(w.said.All()).To(ContainElement(ContainSubstring("volume is busy")))
		w.volumes.Fail(nil)
		Eventually(w.exists(pod)).Should(BeFalse())
	})

	It("is ended when it was forced out of the API", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, ptr.To(int64(0)))
		Eventually(func() int { return len(w.runtime.Has(pod.UID).Sandboxes) }).Should(Equal(0))
		Eventually(w.engine.Views).Should(BeEmpty())
		Expect(w.volumes.Count()).To(Equal(0))
	})

	It("is deleted while it still waits for its image", func() {
		w.runtime.Behave("big", providertest.Behaviour{Absent: true})
		release := w.runtime.Hold("pull")
		defer release()
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "big" }))
		Eventually(w.runtime.Calls).Should(ContainElement("pull big"))
		Expect(w.phase(pod)()).To(Equal(corev1.PodPending))
		w.delete(pod, nil)
		Eventually(w.exists(pod)).Should(BeFalse())
		Eventually(w.engine.Views).Should(BeEmpty())
	})

	It("gives a pod of the same name its own life", func() {
		w.runtime.Behave("server", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		first := w.create(newPod("db"))
		Eventually(w.phase(first)).Should(Equal(corev1.PodRunning))
		w.delete(first, ptr.To(int64(0)))
		second := w.create(newPod("db"))
		Expect(second.UID).NotTo(Equal(first.UID))
		Eventually(w.phase(second)).Should(Equal(corev1.PodRunning))
		Eventually(w.running(first.UID)).Should(BeEmpty())
		Expect(w.running(second.UID)()).To(Equal([]string{"app"}))
		Expect(w.exists(second)()).To(BeTrue())
	})

	It("completes as a job does and keeps its dead container for the logs", func() {
		w.runtime.Behave("task", providertest.Behaviour{Codes: []int32{0}})
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Image = "task"
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodSucceeded))
		Eventually(func() bool { return w.runtime.Has(pod.UID).Sandboxes[0].Ready }).Should(BeFalse())
		Expect(w.runtime.Has(pod.UID).Containers).To(HaveLen(1))
		Eventually(w.volumes.Count).Should(Equal(0))
		Consistently(w.phase(pod), 300*time.Millisecond).Should(Equal(corev1.PodSucceeded))
		w.delete(pod, nil)
		Eventually(w.exists(pod)).Should(BeFalse())
	})

	It("fails as a job does, with the message of its container", func() {
		w.runtime.Behave("task", providertest.Behaviour{Codes: []int32{3}, Message: "no such table"})
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Image = "task"
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodFailed))
		t := w.app(pod).State.Terminated
		Expect(t.ExitCode).To(Equal(int32(3)))
		Expect(t.Message).To(Equal("no such table"))
	})

	It("restarts a crashing container at once, then after a pause", func() {
		w.runtime.Behave("crashy", providertest.Behaviour{Codes: []int32{1}})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "crashy" }))
		Eventually(w.waiting(pod, "app")).Should(Equal("CrashLoopBackOff"))
		c := w.app(pod)
		Expect(c.RestartCount).To(Equal(int32(1)))
		Expect(c.LastTerminationState.Terminated.ExitCode).To(Equal(int32(1)))
		Expect(c.State.Waiting.Message).To(HavePrefix("back-off 10s restarting failed container=app pod=web_default("))
		Expect(w.phase(pod)()).To(Equal(corev1.PodRunning))
		Expect(w.said.All()).To(ContainElement(ContainSubstring("Warning BackOff Back-off restarting failed container app")))
	})

	It("runs init containers in order before the application", func() {
		w.runtime.Behave("step", providertest.Behaviour{Codes: []int32{0}})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{container("one", "step"), container("two", "step")}
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Expect(starts(w)).To(Equal([]string{"one", "two", "app"}))
		Expect(w.condition(pod, corev1.PodInitialized)()).To(Equal(corev1.ConditionTrue))
	})

	It("ends native sidecars after the application, in reverse order", func() {
		w.runtime.Behave("server", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{sidecar("net", "proxy"), sidecar("log", "proxy")}
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Expect(starts(w)).To(Equal([]string{"net", "log", "app"}))
		w.delete(pod, ptr.To(int64(3)))
		Eventually(w.runtime.Calls).Should(ContainElement("stop app 3s"))
		w.runtime.Exit(pod.UID, "app", 0)
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(stops(w)).To(Equal([]string{"app", "log", "net"}))
	})

	It("completes when a job is done although its sidecar runs", func() {
		w.runtime.Behave("task", providertest.Behaviour{Codes: []int32{0}})
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Image = "task"
			p.Spec.InitContainers = []corev1.Container{sidecar("net", "proxy")}
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodSucceeded))
		Expect(w.running(pod.UID)()).To(BeEmpty())
	})

	It("shows why an image cannot be pulled, and recovers", func() {
		w.runtime.Behave("typo", providertest.Behaviour{Absent: true, PullError: errors.New("no such image")})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "typo" }))
		Eventually(w.waiting(pod, "app")).Should(Equal("ErrImagePull"))
		Eventually(w.waiting(pod, "app")).Should(Equal("ImagePullBackOff"))
		Expect(w.said.All()).To(ContainElements(
			"web Normal Pulling Pulling image \"typo\"", ContainSubstring("Warning Failed Failed to pull image \"typo\""),
			"web Warning Failed Error: ErrImagePull", "web Normal BackOff Back-off pulling image \"typo\""))
	})

	It("waits with an event while a volume is missing, and starts by itself when it is there", func() {
		w.volumes.Fail(errors.New(`MountVolume.SetUp failed for volume "v" : secret "s" not found`))
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.said.All).Should(ContainElement(`web Warning FailedMount MountVolume.SetUp failed for volume "v" : secret "s" not found`))
		Expect(w.waiting(pod, "app")()).To(Or(BeEmpty(), Equal("ContainerCreating")))
		Consistently(w.phase(pod), 300*time.Millisecond).Should(Equal(corev1.PodPending))
		w.volumes.Fail(nil)
		w.engine.Wake(pod.UID)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})

	It("gets a new sandbox when the old one dies", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.runtime.KillSandbox(pod.UID)
		Eventually(func() int { return len(w.runtime.Has(pod.UID).Sandboxes) }).Should(Equal(2))
		Eventually(w.running(pod.UID)).Should(Equal([]string{"app"}))
		Eventually(func() int32 { return w.app(pod).RestartCount }).Should(Equal(int32(1)))
	})

	It("fails when its deadline is over", func() {
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.ActiveDeadlineSeconds = ptr.To(int64(2))
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodFailed))
		Expect(w.pod(pod).Status.Reason).To(Equal("DeadlineExceeded"))
	})

	It("keeps conditions and labels that others have written", func() {
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Expect(w.condition(pod, corev1.PodReady)()).To(Equal(corev1.ConditionFalse))
		_, err := w.api.Change("default", "web", func(p *corev1.Pod) {
			p.Labels = map[string]string{"by": "another"}
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
		})
		Expect(err).NotTo(HaveOccurred())
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionTrue))
		Expect(w.pod(pod).Labels).To(HaveKeyWithValue("by", "another"))
		Expect(w.condition(pod, "example.com/gate")()).To(Equal(corev1.ConditionTrue))
	})

	It("starts three hundred pods at once", func() {
		w.start()
		began := time.Now()
		pods := make([]*corev1.Pod, 300)
		for i := range pods {
			pods[i] = w.create(newPod(fmt.Sprintf("p%d", i)))
		}
		for _, p := range pods {
			Eventually(w.phase(p)).WithTimeout(60 * time.Second).Should(Equal(corev1.PodRunning))
		}
		GinkgoWriter.Printf("300 pods ran after %s\n", time.Since(began))
	})
})

// starts returns the names of the containers in the order in which they were started.
func starts(w *world) []string { return names(w, "start ") }

// stops returns the names of the containers in the order in which they were stopped.
func stops(w *world) []string { return names(w, "stop ") }

func names(w *world, call string) []string {
	var all []string
	for _, c := range w.runtime.Calls() {
		if name, ok := strings.CutPrefix(c, call); ok && name != "sandbox" {
			name, _, _ = strings.Cut(name, " ")
			all = append(all, name)
		}
	}
	return all
}
