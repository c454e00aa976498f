package provider_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/provider"
)

var _ = Describe("a resize", func() {
	var w *world
	BeforeEach(func() { w = newWorld() })

	sizedPod := func(name, cpu string, change ...func(*corev1.Pod)) *corev1.Pod {
		return newPod(name, append(change, func(p *corev1.Pod) { setCPU(p, cpu) })...)
	}
	resizeTo := func(name, cpu string) {
		GinkgoHelper()
		_, err := w.api.Change("default", name, func(p *corev1.Pod) {
			p.Generation++
			setCPU(p, cpu)
		})
		Expect(err).NotTo(HaveOccurred())
	}
	inForce := func(pod *corev1.Pod) func() string {
		return func() string {
			if r := w.app(pod).Resources; r != nil {
				q := r.Requests[corev1.ResourceCPU]
				return q.String()
			}
			return ""
		}
	}
	room := func(o *provider.Options) {
		o.Allocatable = func() corev1.ResourceList { return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")} }
	}

	It("takes effect in the running container", func() {
		w.start(room)
		pod := w.create(sizedPod("web", "500m"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		id := w.app(pod).ContainerID
		resizeTo("web", "1")
		Eventually(inForce(pod)).Should(Equal("1"))
		Expect(w.app(pod).ContainerID).To(Equal(id))
		Expect(w.app(pod).RestartCount).To(Equal(int32(0)))
		Eventually(w.condition(pod, corev1.PodResizeInProgress)).Should(BeEmpty())
		Expect(allocated(w.app(pod))).To(Equal("1"))
		Expect(w.said.All()).To(ContainElement("web Normal ResizeCompleted Pod resize completed: cpu=1 memory=0"))
	})

	It("restarts a container whose policy says so", func() {
		w.start(room)
		pod := w.create(sizedPod("web", "500m", func(p *corev1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
		}))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		resizeTo("web", "1")
		Eventually(inForce(pod)).Should(Equal("1"))
		Eventually(func() int32 { return w.app(pod).RestartCount }).Should(Equal(int32(1)))
		Expect(w.runtime.Calls()).NotTo(ContainElement("resize app"))
	})

	It("waits for room and says so, and the container keeps what it has", func() {
		w.start(room)
		other := w.create(sizedPod("other", "1"))
		pod := w.create(sizedPod("web", "500m"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		resizeTo("web", "1500m")
		Eventually(w.condition(pod, corev1.PodResizePending)).Should(Equal(corev1.ConditionTrue))
		Consistently(inForce(pod), 300*time.Millisecond).Should(Equal("500m"))
		Expect(allocated(w.app(pod))).To(Equal("500m"))
		w.delete(other, ptr.To(int64(1)))
		Eventually(w.exists(other)).Should(BeFalse())
		w.engine.Wake(pod.UID)
		Eventually(inForce(pod)).Should(Equal("1500m"))
		Eventually(w.condition(pod, corev1.PodResizePending)).Should(BeEmpty())
	})

	It("says that it can never be", func() {
		w.start(room)
		pod := w.create(sizedPod("web", "500m"))
		Eventually(w.phase(pod)).Should(Equal(corev1.PodRunning))
		resizeTo("web", "64")
		Eventually(func() string {
			for _, c := range w.pod(pod).Status.Conditions {
				if c.Type == corev1.PodResizePending {
					return c.Reason
				}
			}
			return ""
		}).Should(Equal(corev1.PodReasonInfeasible))
		w.restart()
		Consistently(inForce(pod), 300*time.Millisecond).Should(Equal("500m"))
	})
})

func setCPU(p *corev1.Pod, cpu string) {
	q := resource.MustParse(cpu)
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: q}, Limits: corev1.ResourceList{corev1.ResourceCPU: q},
	}
}

func allocated(c corev1.ContainerStatus) string { return c.AllocatedResources.Cpu().String() }
