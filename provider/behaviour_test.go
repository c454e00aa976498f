package provider_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/providertest"
)

var _ = Describe("a restart of the process", func() {
	var w *world
	BeforeEach(func() { w = newWorld() })

	It("leaves running pods alone", func() {
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = execProbe("ready")
		}))
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionTrue))
		before, patches := w.runtime.Has(pod.UID), len(w.api.Patches())
		w.restart()
		Eventually(func() int { return len(w.engine.Views()) }).Should(Equal(1))
		Consistently(func() any { return w.runtime.Has(pod.UID).Containers }, 500*time.Millisecond).Should(Equal(before.Containers))
		Expect(w.api.Patches()[patches:]).To(BeEmpty(), "nothing has changed, so nothing is to be written")
		Expect(w.condition(pod, corev1.PodReady)()).To(Equal(corev1.ConditionTrue))
	})

	It("does not run a finished pod again", func() {
		w.runtime.Behave("task", providertest.Behaviour{Codes: []int32{0}, Message: "42 rows"})
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Image = "task"
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodSucceeded))
		w.restart()
		Consistently(func() int { return len(w.runtime.Has(pod.UID).Containers) }, 500*time.Millisecond).Should(Equal(1))
		Expect(w.app(pod).State.Terminated.Message).To(Equal("42 rows"))
	})

	It("tells what has ended meanwhile", func() {
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.stop()
		w.runtime.Exit(pod.UID, "app", 7)
		w.start()
		Eventually(w.phase(pod)).Should(Equal(corev1.PodFailed))
		Expect(w.app(pod).State.Terminated.ExitCode).To(Equal(int32(7)))
	})

	It("ends pods that were deleted meanwhile", func() {
		w.start()
		kept, lost := w.create(newPod("kept")), w.create(newPod("lost"))
		Eventually(w.phase(kept)).Should(Equal(corev1.PodRunning))
		Eventually(w.phase(lost)).Should(Equal(corev1.PodRunning))
		w.stop()
		w.delete(kept, nil)
		w.delete(lost, ptr.To(int64(0)))
		w.start()
		Eventually(w.exists(kept)).Should(BeFalse())
		Eventually(func() int { return len(w.runtime.Has(lost.UID).Sandboxes) }).Should(Equal(0))
		Eventually(func() int { return len(w.runtime.Has(kept.UID).Sandboxes) }).Should(Equal(0))
	})
})

var _ = Describe("a pod with an injected sidecar", func() {
	var w *world
	var p *providertest.Preparer
	BeforeEach(func() {
		w = newWorld()
		p = providertest.NewPreparer(sidecar("sidemount-data", "fuse"))
		w.preparer = p
	})

	It("starts the application after the sidecar does its work, and does not show the sidecar", func() {
		p.Report(false, "")
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.running(pod.UID)).Should(Equal([]string{"sidemount-data"}))
		Consistently(w.running(pod.UID), 300*time.Millisecond).Should(Equal([]string{"sidemount-data"}))
		p.Report(true, "")
		w.engine.Wake(pod.UID)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		s := w.pod(pod).Status
		Expect(s.InitContainerStatuses).To(BeEmpty())
		Expect(s.ContainerStatuses).To(HaveLen(1))
		Expect(w.pod(pod).Spec.InitContainers).To(BeEmpty())
	})

	It("says why the sidecar does not work, and goes on by itself", func() {
		p.Report(false, "metadata engine redis.example:6379 does not answer")
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.said.All).Should(ContainElement("web Warning FailedMount metadata engine redis.example:6379 does not answer"))
		Eventually(func() string { return w.app(pod).State.Waiting.Message }).Should(ContainSubstring("redis.example"))
		Expect(w.phase(pod)()).To(Equal(corev1.PodPending))
		p.Report(true, "")
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})

	It("stays Pending with an event while it cannot be prepared, and starts once it can", func() {
		p.Fail(&provider.PrepareError{Reason: "VolumeMisconfigured", Message: `Secret "juice" has no key "metaurl": add it`})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		Eventually(w.said.All).Should(ContainElement(`web Warning VolumeMisconfigured Secret "juice" has no key "metaurl": add it`))
		Consistently(w.phase(pod), 1500*time.Millisecond).Should(Equal(corev1.PodPending))
		count := 0
		for _, e := range w.said.All() {
			if e == `web Warning VolumeMisconfigured Secret "juice" has no key "metaurl": add it` {
				count++
			}
		}
		Expect(count).To(Equal(1), "the same message is said once")
		Expect(w.waiting(pod, "app")()).To(Equal("ContainerCreating"))
		p.Fail(nil)
		w.engine.Wake(pod.UID)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})

	It("ends the sidecar last, with time to write what it holds, then releases the sessions", func() {
		w.runtime.Behave("fuse", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, ptr.To(int64(1)))
		Eventually(w.runtime.Calls).Should(ContainElement("stop sidemount-data 3s"))
		Expect(stops(w)).To(Equal([]string{"app", "sidemount-data"}))
		Expect(p.Released()).To(BeEmpty())
		w.runtime.Exit(pod.UID, "sidemount-data", 0)
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(p.Released()).To(Equal([]types.UID{pod.UID}))
	})

	It("completes a job when its own containers have, after the sidecar has ended", func() {
		w.runtime.Behave("task", providertest.Behaviour{Codes: []int32{0}})
		w.runtime.Behave("fuse", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Image = "task"
		}))
		Eventually(w.runtime.Calls).Should(ContainElement("stop sidemount-data 30s"))
		Consistently(w.phase(pod), 200*time.Millisecond).ShouldNot(Equal(corev1.PodSucceeded), "data may still have to be written")
		w.runtime.Exit(pod.UID, "sidemount-data", 1)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodSucceeded))
	})

	It("cuts off the volumes of an application that waits for them and cannot be killed", func() {
		w.runtime.Behave("server", providertest.Behaviour{Stuck: true})
		p.OnRelease = func(pod *corev1.Pod, grace time.Duration) {
			if grace == 0 {
				w.runtime.Exit(pod.UID, "app", 137)
			}
		}
		w.start(func(o *provider.Options) { o.StuckAfter = 100 * time.Millisecond })
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, ptr.To(int64(1)))
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(w.said.All()).To(ContainElement("web Warning FailedKillPod containers do not end after SIGKILL, so their volumes are cut off"))
		Expect(stops(w)).To(Equal([]string{"app", "sidemount-data"}))
	})

	It("runs the next sidecar beside the present one, then ends that one, and the application runs on", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		before := w.app(pod)
		p.Inject(sidecar("sidemount-data", "fuse"), sidecar("sidemount--1-data", "fuse2"))
		w.engine.Again(pod.UID)
		Eventually(w.running(pod.UID)).Should(ConsistOf("sidemount-data", "sidemount--1-data", "app"))
		Consistently(w.running(pod.UID), 200*time.Millisecond).Should(ConsistOf("sidemount-data", "sidemount--1-data", "app"))
		p.Inject(sidecar("sidemount--1-data", "fuse2"))
		w.engine.Again(pod.UID)
		Eventually(w.running(pod.UID)).Should(ConsistOf("sidemount--1-data", "app"))
		w.restart()
		Consistently(w.running(pod.UID), 300*time.Millisecond).Should(ConsistOf("sidemount--1-data", "app"))
		Expect(w.app(pod).ContainerID).To(Equal(before.ContainerID))
		w.delete(pod, nil)
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(stops(w)).To(Equal([]string{"sidemount-data", "app", "sidemount--1-data"}))
	})

	It("shows the conditions of the volumes beside its own", func() {
		p.Tell(corev1.PodCondition{Type: "example.io/VolumesReady", Status: corev1.ConditionTrue})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.condition(pod, "example.io/VolumesReady")).Should(Equal(corev1.ConditionTrue))
		p.Tell(corev1.PodCondition{Type: "example.io/VolumesReady", Status: corev1.ConditionFalse, Message: "lost"})
		w.engine.Wake(pod.UID)
		Eventually(w.condition(pod, "example.io/VolumesReady")).Should(Equal(corev1.ConditionFalse))
		Expect(w.condition(pod, corev1.PodReady)()).To(Equal(corev1.ConditionTrue))
	})

	It("says why the next sidecar does not run", func() {
		w.runtime.Behave("broken", providertest.Behaviour{CreateError: errors.New("no such file")})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		p.Inject(sidecar("sidemount-data", "fuse"), sidecar("sidemount--1-data", "broken"))
		w.engine.Again(pod.UID)
		Eventually(func() string { return w.engine.Waiting(pod.UID, "sidemount--1-data") }).Should(ContainSubstring("no such file"))
		Expect(w.engine.Waiting(pod.UID, "sidemount-data")).To(BeEmpty())
		Expect(w.phase(pod)()).To(Equal(corev1.PodRunning))
	})

	It("restarts a sidecar that dies while the pod is ended, for the application and for what it has not written", func() {
		w.runtime.Behave("server", providertest.Behaviour{IgnoresTerm: true})
		w.runtime.Behave("fuse", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		p.Owe(true)
		w.delete(pod, ptr.To(int64(20)))
		Eventually(w.runtime.Calls).Should(ContainElement(HavePrefix("stop app ")))
		w.runtime.Exit(pod.UID, "sidemount-data", 137)
		Eventually(w.running(pod.UID)).Should(ConsistOf("sidemount-data", "app"))
		w.runtime.Exit(pod.UID, "app", 0)
		Eventually(w.runtime.Calls).Should(ContainElement(HavePrefix("stop sidemount-data ")))
		Expect(stops(w)).To(Equal([]string{"app", "sidemount-data"}))
		Expect(p.Released()).To(BeEmpty())
		w.runtime.Exit(pod.UID, "sidemount-data", 0)
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(p.Released()).To(Equal([]types.UID{pod.UID}))
	})

	It("does not restart a sidecar of a pod that is ended if nobody needs it, nor for ever", func() {
		w.runtime.Behave("server", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, ptr.To(int64(1)))
		Eventually(w.runtime.Calls).Should(ContainElement(HavePrefix("stop app ")))
		w.runtime.Exit(pod.UID, "sidemount-data", 137)
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(stops(w)).To(Equal([]string{"app"}))

		w.runtime.Behave("fuse", providertest.Behaviour{Codes: []int32{1}})
		p.Owe(true)
		pod = w.create(newPod("crashing"))
		Eventually(w.runtime.Calls).Should(ContainElement(HavePrefix("start app")))
		w.delete(pod, ptr.To(int64(1)))
		Eventually(w.exists(pod)).WithTimeout(20 * time.Second).Should(BeFalse())
	})

	It("restarts a sidecar that dies beside the application", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.runtime.Exit(pod.UID, "sidemount-data", 137)
		Eventually(w.running(pod.UID)).Should(ConsistOf("sidemount-data", "app"))
		Expect(w.app(pod).RestartCount).To(Equal(int32(0)))
	})
})

var _ = Describe("probes and hooks", func() {
	var w *world
	BeforeEach(func() { w = newWorld() })

	It("make a container ready and unready", func() {
		var code atomic.Int32
		code.Store(1)
		w.runtime.Behave("server", providertest.Behaviour{Exec: func([]string) (string, int32) { return "not yet", code.Load() }})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = execProbe("check") }))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Eventually(w.said.All).Should(ContainElement("web Warning Unhealthy Readiness probe failed: not yet"))
		Expect(w.condition(pod, corev1.PodReady)()).To(Equal(corev1.ConditionFalse))
		code.Store(0)
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionTrue))
		code.Store(1)
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionFalse))
	})

	It("restart a container that is not alive", func() {
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusInternalServerError) }))
		defer server.Close()
		u, err := url.Parse(server.URL)
		Expect(err).NotTo(HaveOccurred())
		port, err := strconv.Atoi(u.Port())
		Expect(err).NotTo(HaveOccurred())
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2, ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{Host: u.Hostname(), Port: intstr.FromInt32(int32(port)), Path: "healthz"}}}
		}))
		Eventually(func() int32 {
			return w.app(pod).RestartCount
		}).Should(BeNumerically(">=", 1))
		Expect(w.said.All()).To(ContainElements(
			"web Warning Unhealthy Liveness probe failed: HTTP probe failed with statuscode: 500",
			"web Normal Killing Container app failed liveness probe, will be restarted"))
	})

	It("wait for the startup probe", func() {
		var code atomic.Int32
		code.Store(1)
		w.runtime.Behave("server", providertest.Behaviour{Exec: func(c []string) (string, int32) {
			if c[0] == "startup" {
				return "", code.Load()
			}
			return "", 0
		}})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].StartupProbe = execProbe("startup")
			p.Spec.Containers[0].StartupProbe.FailureThreshold = 100
			p.Spec.Containers[0].ReadinessProbe = execProbe("ready")
		}))
		Eventually(w.runtime.Calls).Should(ContainElement("exec app [startup]"))
		Eventually(func() *bool { return w.app(pod).Started }).Should(HaveValue(BeFalse()))
		Expect(w.runtime.Calls()).NotTo(ContainElement("exec app [ready]"))
		code.Store(0)
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionTrue))
		Expect(*w.app(pod).Started).To(BeTrue())
	})

	It("report a container as running after its postStart hook", func() {
		release := w.runtime.Hold("exec")
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"hook"}}}}
		}))
		Eventually(w.runtime.Calls).Should(ContainElement("exec app [hook]"))
		Consistently(w.phase(pod), 300*time.Millisecond).Should(Equal(corev1.PodPending))
		release()
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})

	It("end a container whose postStart hook fails", func() {
		w.runtime.Behave("server", providertest.Behaviour{Exec: func([]string) (string, int32) { return "", 1 }})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"hook"}}}}
		}))
		Eventually(w.said.All).Should(ContainElement("web Warning FailedPostStartHook PostStartHook failed"))
		Eventually(w.waiting(pod, "app")).ShouldNot(BeEmpty())
		Eventually(func() int { return len(w.runtime.Has(pod.UID).Containers) }).Should(BeNumerically("==", 2))
		Expect(w.running(pod.UID)()).To(BeEmpty())
	})

	It("run the preStop hook before the stop signal", func() {
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye"}}}}
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, nil)
		Eventually(w.exists(pod)).Should(BeFalse())
		calls := w.runtime.Calls()
		Expect(calls).To(ContainElement("exec app [bye]"))
		for _, c := range calls {
			if c == "stop app 30s" {
				Fail("stopped before the hook")
			}
			if c == "exec app [bye]" {
				break
			}
		}
	})

	It("a later request with a shorter grace period counts", func() {
		w.runtime.Behave("server", providertest.Behaviour{IgnoresTerm: true})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.delete(pod, ptr.To(int64(600)))
		Eventually(w.runtime.Calls).Should(ContainElement("stop app 10m0s"))
		began := time.Now()
		w.delete(pod, ptr.To(int64(1)))
		Eventually(w.exists(pod)).Should(BeFalse())
		Expect(time.Since(began)).To(BeNumerically("<", 8*time.Second))
	})
})

var _ = Describe("the engine", func() {
	var w *world
	BeforeEach(func() { w = newWorld() })

	It("shows why a container cannot be configured", func() {
		w.runtime.Behave("server", providertest.Behaviour{CreateError: provider.ConfigError(errors.New(`secret "s" not found`))})
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.waiting(pod, "app")).Should(Equal("CreateContainerConfigError"))
		Expect(w.app(pod).State.Waiting.Message).To(Equal(`secret "s" not found`))
		Expect(w.said.All()).To(ContainElement(`web Warning Failed Error: secret "s" not found`))
		w.runtime.Behave("server", providertest.Behaviour{})
		w.engine.Wake(pod.UID)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})

	It("shows that an image is absent and must not be pulled", func() {
		w.runtime.Behave("local", providertest.Behaviour{Absent: true})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "local", corev1.PullNever
		}))
		Eventually(w.waiting(pod, "app")).Should(Equal("ErrImageNeverPull"))
	})

	It("tries a sandbox again, with an event", func() {
		w.runtime.Fail("run", errors.New("no more addresses"))
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.said.All).Should(ContainElement("web Warning FailedCreatePodSandBox Failed to create pod sandbox: no more addresses"))
		w.runtime.Fail("run", nil)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})

	It("pulls an image once for many pods", func() {
		w.runtime.Behave("big", providertest.Behaviour{Absent: true})
		release := w.runtime.Hold("pull")
		w.start()
		var pods []*corev1.Pod
		for _, n := range []string{"a", "b", "c", "d"} {
			pods = append(pods, w.create(newPod(n, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "big" })))
		}
		Eventually(func() int {
			n := 0
			for _, e := range w.said.All() {
				if e[1:] == ` Normal Pulling Pulling image "big"` {
					n++
				}
			}
			return n
		}).Should(Equal(4))
		release()
		for _, p := range pods {
			Eventually(w.phase(p)).Should(Equal(corev1.PodRunning))
		}
		pulls := 0
		for _, c := range w.runtime.Calls() {
			if c == "pull big" {
				pulls++
			}
		}
		Expect(pulls).To(Equal(1))
	})

	It("runs an ephemeral container that is added", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		_, err := w.api.Change("default", "web", func(p *corev1.Pod) {
			p.Generation++
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "shell", ImagePullPolicy: corev1.PullIfNotPresent},
				TargetContainerName:      "app",
			})
		})
		Expect(err).NotTo(HaveOccurred())
		Eventually(w.running(pod.UID)).Should(ConsistOf("app", "debug"))
		Eventually(func() int { return len(w.pod(pod).Status.EphemeralContainerStatuses) }).Should(Equal(1))
		Eventually(func() int64 { return w.pod(pod).Status.ObservedGeneration }).Should(Equal(int64(2)))
	})

	It("restarts a container whose image was changed", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		_, err := w.api.Change("default", "web", func(p *corev1.Pod) {
			p.Generation++
			p.Spec.Containers[0].Image = "server:2"
		})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() string { return w.app(pod).Image }).Should(Equal("server:2"))
		Expect(w.said.All()).To(ContainElement("web Normal Killing Container app definition changed, will be restarted"))
	})

	It("evicts with a reason and a condition", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		Expect(w.engine.Evict(pod.UID, "Evicted", "The node was low on resource: memory.")).To(BeTrue())
		Eventually(w.phase(pod)).Should(Equal(corev1.PodFailed))
		Expect(w.pod(pod).Status.Reason).To(Equal("Evicted"))
		Expect(w.condition(pod, corev1.DisruptionTarget)()).To(Equal(corev1.ConditionTrue))
	})

	It("finds what no event has told", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		w.runtime.Mute()
		w.runtime.Exit(pod.UID, "app", 1)
		Eventually(func() int32 { return w.app(pod).RestartCount }).Should(Equal(int32(1)))
	})

	It("writes few patches for a pod that starts", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.condition(pod, corev1.PodReady)).Should(Equal(corev1.ConditionTrue))
		Consistently(func() int { return len(w.api.Patches()) }, 500*time.Millisecond).Should(BeNumerically("<=", 2))
	})
})

var _ = Describe("the client for virtual-kubelet", func() {
	It("turns a deletion into a request to the engine and a full write of the status into a patch", func() {
		w := newWorld()
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		factory := informers.NewSharedInformerFactory(w.api, 0)
		lister := factory.Core().V1().Pods().Lister()
		Expect(factory.Core().V1().Pods().Informer().GetStore().Add(w.pod(pod))).To(Succeed())
		client := provider.NewPodClient(w.api.CoreV1(), w.engine, lister).Pods("default")
		err := client.Delete(context.Background(), "web", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})
		Expect(apierrors.IsConflict(err)).To(BeTrue())
		Consistently(w.exists(pod), 300*time.Millisecond).Should(BeTrue())

		_, err = w.api.Change("default", "web", func(p *corev1.Pod) { p.Labels = map[string]string{"by": "another"} })
		Expect(err).NotTo(HaveOccurred())
		stale := w.pod(pod).DeepCopy()
		stale.Labels = nil
		stale.Status.Message = "hello"
		_, err = client.UpdateStatus(context.Background(), stale, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(w.pod(pod).Labels).To(HaveKeyWithValue("by", "another"))
	})
})

func execProbe(command string) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{command}}}}
}

var _ = Describe("what was left behind", func() {
	var w *world
	BeforeEach(func() { w = newWorld() })

	It("is ended if the API does not know it", func() {
		pod := newPod("stray")
		pod.UID = "stray-uid"
		_, err := w.runtime.RunSandbox(context.Background(), pod, 0)
		Expect(err).NotTo(HaveOccurred())
		w.start()
		Eventually(func() int { return len(w.runtime.Has("stray-uid").Sandboxes) }).Should(Equal(0))
		Eventually(w.engine.Views).Should(BeEmpty())
	})

	It("is removed even if it is volumes only", func() {
		pod := newPod("gone")
		pod.UID = "gone-uid"
		Expect(w.volumes.SetUp(context.Background(), pod)).To(Succeed())
		w.start()
		Eventually(w.volumes.Count).Should(Equal(0))
		Eventually(w.engine.Views).Should(BeEmpty())
	})

	It("does not come back by a version of the pod that comes late", func() {
		w.start()
		pod := w.create(newPod("web"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		late := w.pod(pod)
		w.delete(pod, ptr.To(int64(0)))
		Eventually(w.engine.Views).Should(BeEmpty())
		Expect(w.control.Provider().CreatePod(context.Background(), late)).To(Succeed())
		Consistently(w.engine.Views, 300*time.Millisecond).Should(BeEmpty())
	})

	It("keeps its pause when it crashed before a restart of the process", func() {
		w.runtime.Behave("crashy", providertest.Behaviour{Codes: []int32{1}})
		w.start()
		pod := w.create(newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "crashy" }))
		Eventually(w.waiting(pod, "app")).Should(Equal("CrashLoopBackOff"))
		w.restart()
		Consistently(func() int { return len(w.runtime.Has(pod.UID).Containers) }, time.Second).Should(Equal(2))
	})

	It("waits for a runtime that is not there yet", func() {
		w.runtime.Fail("pods", errors.New("connection refused"))
		w.start()
		pod := w.create(newPod("web"))
		Consistently(w.phase(pod), 300*time.Millisecond).Should(Equal(corev1.PodPending))
		w.runtime.Fail("pods", nil)
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
	})
})

var _ = Describe("admission", func() {
	It("makes a pod fail that the node cannot take, and runs nothing of it", func() {
		w := newWorld()
		w.start(func(o *provider.Options) {
			o.Allocatable = func() corev1.ResourceList { return corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")} }
		})
		first := w.create(newPod("first"))
		Eventually(w.phase(first)).Should(Equal(corev1.PodRunning))
		second := w.create(newPod("second"))
		Eventually(w.phase(second)).Should(Equal(corev1.PodFailed))
		Expect(w.pod(second).Status.Reason).To(Equal("OutOfpods"))
		Expect(w.runtime.Has(second.UID).Sandboxes).To(BeEmpty())
		Expect(w.said.All()).To(ContainElement(HavePrefix("second Warning OutOfpods Pod was rejected")))
		w.restart()
		Consistently(w.phase(first), 300*time.Millisecond).Should(Equal(corev1.PodRunning))
	})
})
