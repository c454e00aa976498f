package providertest

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/cri"
)

// RunSandbox implements provider.Sandboxes.
func (r *Runtime) RunSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (string, error) {
	if err := r.call(ctx, "run", ""); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[pod.UID]
	if p == nil {
		p = &cri.Pod{UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name}
		r.pods[pod.UID] = p
	}
	for _, s := range p.Sandboxes {
		if s.Attempt == attempt {
			return "", fmt.Errorf("name of sandbox is reserved: attempt %d exists", attempt)
		}
	}
	s := cri.Sandbox{ID: r.id(), Attempt: attempt, Ready: true, CreatedAt: time.Now()}
	if !pod.Spec.HostNetwork {
		s.IPs = []string{fmt.Sprintf("10.88.0.%d", r.next%250+1)}
	}
	p.Sandboxes = slices.Insert(p.Sandboxes, 0, s)
	r.emit(cri.ContainerStarted, pod.UID, s.ID)
	return s.ID, nil
}

// StopSandbox implements provider.Sandboxes.
func (r *Runtime) StopSandbox(ctx context.Context, id string) error {
	if err := r.call(ctx, "stop sandbox", ""); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, i := r.sandbox(id); p != nil && p.Sandboxes[i].Ready {
		r.endSandbox(p, i)
	}
	return nil
}

// RemoveSandbox implements provider.Sandboxes.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	if err := r.call(ctx, "remove sandbox", ""); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, i := r.sandbox(id)
	if p == nil {
		return nil
	}
	r.endSandbox(p, i)
	p.Containers = slices.DeleteFunc(p.Containers, func(c cri.Container) bool { return c.SandboxID == id })
	p.Sandboxes = slices.Delete(p.Sandboxes, i, i+1)
	if len(p.Sandboxes) == 0 {
		delete(r.pods, p.UID)
	}
	r.emit(cri.ContainerDeleted, p.UID, id)
	return nil
}

// RemoveLogs implements provider.Sandboxes; there are none.
func (r *Runtime) RemoveLogs(ctx context.Context, _ *corev1.Pod) error {
	return r.call(ctx, "remove logs", "")
}

// KillSandbox lets the pod's newest sandbox die with all that runs in it.
func (r *Runtime) KillSandbox(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil && len(p.Sandboxes) > 0 {
		r.endSandbox(p, 0)
	}
}

// endSandbox ends a sandbox and its containers. Callers hold mu.
func (r *Runtime) endSandbox(p *cri.Pod, i int) {
	s := &p.Sandboxes[i]
	s.Ready, s.IPs = false, nil
	for j := range p.Containers {
		if c := &p.Containers[j]; c.SandboxID == s.ID && c.State == cri.Running {
			r.end(p, c, 137)
		}
	}
	r.emit(cri.ContainerStopped, p.UID, s.ID)
}

// sandbox finds a sandbox. Callers hold mu.
func (r *Runtime) sandbox(id string) (*cri.Pod, int) {
	for _, p := range r.pods {
		for i := range p.Sandboxes {
			if p.Sandboxes[i].ID == id {
				return p, i
			}
		}
	}
	return nil, 0
}
