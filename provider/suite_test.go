package provider_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	"github.com/virtual-kubelet/virtual-kubelet/log"
	vklogrus "github.com/virtual-kubelet/virtual-kubelet/log/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/providertest"
)

func TestProvider(t *testing.T) {
	logger := logrus.New()
	logger.SetOutput(GinkgoWriter)
	logger.SetLevel(logrus.DebugLevel)
	log.L = vklogrus.FromLogrus(logrus.NewEntry(logger))
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(15 * time.Second)
	SetDefaultEventuallyPollingInterval(5 * time.Millisecond)
	RunSpecs(t, "pod engine")
}

const nodeName = "virtual"

// world is a node with everything around it in memory.
type world struct {
	api      *providertest.API
	runtime  *providertest.Runtime
	volumes  *providertest.Volumes
	said     *eventLog
	engine   *provider.Engine
	control  *provider.Controller
	options  provider.Options
	changes  []func(*provider.Options)
	stop     func()
	preparer provider.Preparer
}

func newWorld() *world {
	w := &world{
		api: providertest.NewAPI(), runtime: providertest.NewRuntime(), volumes: providertest.NewVolumes(),
		said: &eventLog{},
	}
	return w
}

// start runs a new engine over what is there already.
func (w *world) start(change ...func(*provider.Options)) {
	GinkgoHelper()
	before := runtime.NumGoroutine()
	w.options = provider.Options{
		NodeName: nodeName, Client: w.api.CoreV1(), Recorder: w.said, Runtime: w.runtime, Images: w.runtime, Volumes: w.volumes,
		Preparer: w.preparer, HostIPs: func() []string { return []string{"10.0.0.1"} }, Sweep: 200 * time.Millisecond,
		SidecarGrace: 3 * time.Second, Linger: time.Millisecond,
	}
	w.changes = change
	for _, c := range change {
		c(&w.options)
	}
	engine, err := provider.NewEngine(w.options)
	Expect(err).NotTo(HaveOccurred())
	control, err := provider.NewController(provider.ControllerOptions{Client: w.api, Engine: engine})
	Expect(err).NotTo(HaveOccurred())
	w.engine, w.control = engine, control
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		Eventually(done).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
		Eventually(runtime.NumGoroutine).WithTimeout(10*time.Second).Should(BeNumerically("<=", before+2), "goroutines are left")
	})
	DeferCleanup(w.stop)
}

// restart ends the engine and runs a new one, as a restart of the process would.
func (w *world) restart() {
	GinkgoHelper()
	w.stop()
	w.start(w.changes...)
}

// create makes a pod bound to the node.
func (w *world) create(pod *corev1.Pod) *corev1.Pod {
	GinkgoHelper()
	created, err := w.api.CoreV1().Pods(pod.Namespace).Create(context.Background(), pod, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return created
}

// delete asks for the end of a pod as kubectl does; nil takes the pod's own grace period.
func (w *world) delete(pod *corev1.Pod, grace *int64) {
	GinkgoHelper()
	err := w.api.CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: grace})
	Expect(err).NotTo(HaveOccurred())
}

// pod returns the pod as the API server has it, an empty one if it has none.
func (w *world) pod(pod *corev1.Pod) *corev1.Pod {
	p, err := w.api.CoreV1().Pods(pod.Namespace).Get(context.Background(), pod.Name, metav1.GetOptions{})
	if err != nil || p.UID != pod.UID {
		return &corev1.Pod{}
	}
	return p
}

func (w *world) phase(pod *corev1.Pod) func() corev1.PodPhase {
	return func() corev1.PodPhase { return w.pod(pod).Status.Phase }
}

func (w *world) exists(pod *corev1.Pod) func() bool {
	return func() bool { return w.pod(pod).UID == pod.UID }
}

// app returns the status of the pod's first container, an empty one before there is any.
func (w *world) app(pod *corev1.Pod) corev1.ContainerStatus {
	if s := w.pod(pod).Status.ContainerStatuses; len(s) > 0 {
		return s[0]
	}
	return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}
}

// waiting returns why the container does not run.
func (w *world) waiting(pod *corev1.Pod, container string) func() string {
	return func() string {
		s := w.pod(pod).Status
		for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
			for _, c := range list {
				if c.Name == container && c.State.Waiting != nil {
					return c.State.Waiting.Reason
				}
			}
		}
		return ""
	}
}

func (w *world) condition(pod *corev1.Pod, t corev1.PodConditionType) func() corev1.ConditionStatus {
	return func() corev1.ConditionStatus {
		for _, c := range w.pod(pod).Status.Conditions {
			if c.Type == t {
				return c.Status
			}
		}
		return ""
	}
}

// running returns the names of the containers that the runtime runs for the pod.
func (w *world) running(uid types.UID) func() []string {
	return func() []string {
		var names []string
		for _, c := range w.runtime.Has(uid).Containers {
			if c.State == "Running" {
				names = append(names, c.Name)
			}
		}
		return names
	}
}

// newPod returns a pod with the containers given by name and image.
func newPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	grace := int64(30)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: nodeName, RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{container("app", "server")},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func container(name, image string) corev1.Container {
	return corev1.Container{Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent}
}

func sidecar(name, image string) corev1.Container {
	c := container(name, image)
	always := corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c
}
