package mountpodtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/csi/mountpod"
)

var _ mountpod.Pods = (*Pods)(nil)

// Pods are Mount Pods that run as processes. They behave as those of a cluster with one node: they restart, take their time to end, and are told to a
// watch. Their methods may be called from any goroutine.
type Pods struct {
	// Programs are programs of client images, by their path there. It must be set before the first pod.
	Programs map[string]string
	// Logs is a directory for what the pods write, one file for each container start.
	Logs string

	mu      sync.Mutex
	pods    map[string]*process
	handler mountpod.Handler
	calls   Calls
	refuse  error
	admit   func(*corev1.Pod) *corev1.PodStatus
	broken  map[string]string
	serial  int
	running sync.WaitGroup
}

// Calls counts requests to the API server.
type Calls struct{ Create, Get, Delete, Watch int }

// NewPods returns a cluster without pods.
func NewPods(logs string, programs map[string]string) *Pods {
	return &Pods{Programs: programs, Logs: logs, pods: map[string]*process{}, broken: map[string]string{}}
}

// Calls returns what has been asked so far.
func (p *Pods) Calls() Calls {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// Refuse makes Create fail; nil ends that.
func (p *Pods) Refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = err
}

// Admit decides about new pods: nil runs them, a status is what they get instead. nil as the function runs all, those too that have been waiting.
func (p *Pods) Admit(admit func(*corev1.Pod) *corev1.PodStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.admit = admit
	for _, run := range p.pods {
		if admit == nil && !run.started && run.pod.Status.Phase == corev1.PodPending && run.pod.DeletionTimestamp == nil {
			p.start(run)
		}
	}
}

// Break makes pods with this image run another client in the place of their own.
func (p *Pods) Break(image, client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken[image] = client
}

// start runs a pod. The caller holds mu.
func (p *Pods) start(run *process) {
	run.started = true
	p.running.Go(run.run)
}

// Create implements mountpod.Pods.
func (p *Pods) Create(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls.Create++
	if p.refuse != nil {
		return nil, p.refuse
	}
	if p.pods[pod.Name] != nil {
		return nil, apierrors.NewAlreadyExists(corev1.Resource("pods"), pod.Name)
	}
	p.serial++
	pod = pod.DeepCopy()
	pod.UID = types.UID("pod-" + strconv.Itoa(p.serial))
	pod.CreationTimestamp = metav1.Now()
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	run := &process{pods: p, pod: pod, end: make(chan struct{}), kill: make(chan struct{}, 1)}
	p.pods[pod.Name] = run
	var status *corev1.PodStatus
	if p.admit != nil {
		status = p.admit(pod)
	}
	if status != nil {
		pod.Status = *status
	}
	p.tell(run)
	if status == nil {
		p.start(run)
	}
	return pod.DeepCopy(), nil
}

// Get implements mountpod.Pods.
func (p *Pods) Get(_ context.Context, name string) (*corev1.Pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls.Get++
	if run := p.pods[name]; run != nil {
		return run.pod.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

// Delete implements mountpod.Pods.
func (p *Pods) Delete(_ context.Context, name string, uid types.UID, grace time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls.Delete++
	if run := p.pods[name]; run != nil && run.pod.UID == uid && run.pod.DeletionTimestamp == nil {
		seconds := int64(grace.Seconds())
		run.pod.DeletionGracePeriodSeconds = &seconds
	}
	p.remove(name, uid)
	return nil
}

// Evict deletes a pod as the API server's eviction does, whoever uses it.
func (p *Pods) Evict(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run := p.pods[name]; run != nil {
		run.pod.Status.Conditions = append(run.pod.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet,
		})
		p.remove(name, run.pod.UID)
	}
}

// remove begins a deletion. The caller holds mu.
func (p *Pods) remove(name string, uid types.UID) {
	run := p.pods[name]
	if run == nil || run.pod.UID != uid || run.pod.DeletionTimestamp != nil {
		return
	}
	now := metav1.Now()
	run.pod.DeletionTimestamp = &now
	p.tell(run)
	close(run.end)
	if !run.started {
		p.gone(run)
	}
}

// Annotate sets an annotation, as kubectl does.
func (p *Pods) Annotate(name, key, value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run := p.pods[name]; run != nil {
		run.pod.Annotations[key] = value
		p.tell(run)
	}
}

// Fail ends a pod for good, as the kubelet does when it evicts one.
func (p *Pods) Fail(name, reason, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run := p.pods[name]; run != nil {
		run.failure = &corev1.PodStatus{Phase: corev1.PodFailed, Reason: reason, Message: message}
		run.shoot()
	}
}

// Kill kills a pod's processes as the kernel does; they start again.
func (p *Pods) Kill(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run := p.pods[name]; run != nil {
		run.shoot()
	}
}

// Signal sends a signal to the agent of a pod, and not to its client.
func (p *Pods) Signal(name string, signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run := p.pods[name]; run != nil && run.agent != nil {
		_ = run.agent.Signal(signal) // it may just have ended
	}
}

// All returns the pods as they are now, by name.
func (p *Pods) All() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*corev1.Pod
	for _, name := range slices.Sorted(maps.Keys(p.pods)) {
		all = append(all, p.pods[name].pod.DeepCopy())
	}
	return all
}

// Watch implements mountpod.Pods. There is one watch at a time.
func (p *Pods) Watch(ctx context.Context, h mountpod.Handler) error {
	p.mu.Lock()
	p.calls.Watch++
	if p.handler != nil {
		p.mu.Unlock()
		return fmt.Errorf("somebody watches already")
	}
	p.handler = h
	for _, name := range slices.Sorted(maps.Keys(p.pods)) {
		h.Changed(p.pods[name].pod.DeepCopy())
	}
	h.Synced()
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.handler = nil
	p.mu.Unlock()
	return nil
}

// Close kills all pods and waits for their ends.
func (p *Pods) Close() {
	p.mu.Lock()
	for name, run := range p.pods {
		p.remove(name, run.pod.UID)
		run.shoot()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// tell hands a pod's state to the watch. The caller holds mu.
func (p *Pods) tell(run *process) {
	if p.handler != nil {
		p.handler.Changed(run.pod.DeepCopy())
	}
}

// gone removes a pod that has ended. The caller holds mu.
func (p *Pods) gone(run *process) {
	delete(p.pods, run.pod.Name)
	if p.handler != nil {
		p.handler.Gone(run.pod.DeepCopy())
	}
}

// restartPause is between two starts of a pod's container.
const restartPause = 100 * time.Millisecond
