package providertest

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider"
)

var _ provider.Preparer = (*Preparer)(nil)

// Preparer injects one native sidecar into every pod.
type Preparer struct {
	// Sidecar is put first among the init containers.
	Sidecar corev1.Container
	// OnRelease, if set, is called by each Release.
	OnRelease func(pod *corev1.Pod, grace time.Duration)

	// mu guards the fields below.
	mu       sync.Mutex
	err      error
	started  bool
	owes     bool
	sidecars []corev1.Container
	told     []corev1.PodCondition
	failure  string
	prepared map[types.UID]int
	released []types.UID
}

// NewPreparer returns a Preparer whose sidecar has started as soon as it runs.
func NewPreparer(sidecar corev1.Container) *Preparer {
	return &Preparer{Sidecar: sidecar, started: true, prepared: make(map[types.UID]int)}
}

// Fail makes Prepare fail with err until it is called with nil.
func (p *Preparer) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Report sets what Started answers.
func (p *Preparer) Report(started bool, failure string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started, p.failure = started, failure
}

// Owe sets what Owes answers.
func (p *Preparer) Owe(owes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owes = owes
}

// Inject sets what Prepare injects from now on, in place of Sidecar.
func (p *Preparer) Inject(sidecars ...corev1.Container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sidecars = sidecars
}

// Tell sets the conditions of all pods.
func (p *Preparer) Tell(conditions ...corev1.PodCondition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = conditions
}

// Released returns the pods that have been released, each once.
func (p *Preparer) Released() []types.UID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Clone(p.released))
}

// Prepare implements provider.Preparer.
func (p *Preparer) Prepare(_ context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	p.prepared[pod.UID]++
	pod = pod.DeepCopy()
	sidecars := p.sidecars
	if sidecars == nil {
		sidecars = []corev1.Container{p.Sidecar}
	}
	pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, 0, sidecars...)
	return pod, nil
}

// Started implements provider.Preparer.
func (p *Preparer) Started(*corev1.Pod, string) (bool, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started, p.failure
}

// Owes implements provider.Preparer.
func (p *Preparer) Owes(*corev1.Pod, string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owes
}

// Conditions implements provider.Preparer.
func (p *Preparer) Conditions(*corev1.Pod) []corev1.PodCondition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// Release implements provider.Preparer.
func (p *Preparer) Release(_ context.Context, pod *corev1.Pod, grace time.Duration) error {
	if p.OnRelease != nil {
		p.OnRelease(pod, grace)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released = append(p.released, pod.UID)
	return nil
}
