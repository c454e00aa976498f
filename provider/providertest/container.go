package providertest

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

// CreateContainer implements provider.Containers.
func (r *Runtime) CreateContainer(ctx context.Context, q provider.CreateRequest) (string, error) {
	if err := r.call(ctx, "create", " "+q.Container.Name); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.behaviours[q.Container.Image]
	if b.CreateError != nil {
		return "", b.CreateError
	}
	p, i := r.sandbox(q.Sandbox.ID)
	switch {
	case p == nil || !p.Sandboxes[i].Ready:
		return "", fmt.Errorf("sandbox %s: %w", q.Sandbox.ID, cri.ErrNotFound)
	case q.Image == "":
		return "", fmt.Errorf("image %q: %w", q.Container.Image, cri.ErrNotFound)
	}
	for _, c := range p.Containers {
		if c.Name == q.Container.Name && c.Attempt == q.Attempt && c.SandboxID == q.Sandbox.ID {
			return "", fmt.Errorf("name of container %s is reserved: attempt %d exists", c.Name, c.Attempt)
		}
	}
	c := cri.Container{
		ID: r.id(), SandboxID: q.Sandbox.ID, Name: q.Container.Name, Image: q.Container.Image, ImageID: q.Image,
		ImageRef: "example.com/" + q.Container.Image + "@sha256:0", Attempt: q.Attempt, State: cri.Created, CreatedAt: time.Now(),
		Hash: r.ContainerHash(q.Container), LogPath: "/var/log/pods/" + string(p.UID) + "/" + q.Container.Name,
		TerminationGracePeriod: q.Pod.Spec.TerminationGracePeriodSeconds, Resources: inForce(q.Container),
	}
	p.Containers = slices.Insert(p.Containers, 0, c)
	r.emit(cri.ContainerCreated, p.UID, c.ID)
	return c.ID, nil
}

// StartContainer implements provider.Containers.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	r.mu.Lock()
	name := r.nameOf(id)
	r.mu.Unlock()
	if err := r.call(ctx, "start", " "+name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, c := r.container(id)
	if c == nil || c.State != cri.Created {
		return fmt.Errorf("container %s cannot be started", id)
	}
	b := r.behaviours[c.Image]
	if b.StartError != nil {
		c.State, c.ExitCode, c.Reason, c.FinishedAt = cri.Exited, 128, "StartError", time.Now()
		return b.StartError
	}
	c.State, c.StartedAt = cri.Running, time.Now()
	r.exits[id] = make(chan struct{})
	r.emit(cri.ContainerStarted, p.UID, id)
	if len(b.Codes) > 0 {
		r.end(p, c, b.Codes[min(int(c.Attempt), len(b.Codes)-1)])
	}
	return nil
}

// StopContainer implements provider.Containers.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	r.mu.Lock()
	name := r.nameOf(id)
	r.mu.Unlock()
	if err := r.call(ctx, "stop", fmt.Sprintf(" %s %s", name, grace.Round(time.Second))); err != nil {
		return err
	}
	r.mu.Lock()
	p, c := r.container(id)
	if c == nil || c.State != cri.Running {
		r.mu.Unlock()
		return nil
	}
	exited := r.exits[id]
	stuck := r.behaviours[c.Image].Stuck
	if !r.behaviours[c.Image].IgnoresTerm && !stuck {
		r.end(p, c, 0)
	}
	r.mu.Unlock()
	if stuck {
		select {
		case <-exited:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-exited:
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		r.Exit(p.UID, name, 137)
	}
	return nil
}

// RemoveContainer implements provider.Containers.
func (r *Runtime) RemoveContainer(ctx context.Context, dead cri.Container) error {
	if err := r.call(ctx, "remove", " "+dead.Name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, c := r.container(dead.ID)
	if c == nil {
		return nil
	}
	if c.State == cri.Running {
		return fmt.Errorf("container %s is running", c.ID)
	}
	p.Containers = slices.DeleteFunc(p.Containers, func(c cri.Container) bool { return c.ID == dead.ID })
	r.emit(cri.ContainerDeleted, p.UID, dead.ID)
	return nil
}

// ExecSync implements provider.Containers.
func (r *Runtime) ExecSync(ctx context.Context, id string, command []string, _ time.Duration) ([]byte, int32, error) {
	r.mu.Lock()
	_, c := r.container(id)
	if c == nil || c.State != cri.Running {
		r.mu.Unlock()
		return nil, 0, fmt.Errorf("container %s: %w", id, cri.ErrNotFound)
	}
	name, answer := c.Name, r.behaviours[c.Image].Exec
	r.mu.Unlock()
	if err := r.call(ctx, "exec", fmt.Sprintf(" %s %v", name, command)); err != nil {
		return nil, 0, err
	}
	if answer == nil {
		return nil, 0, nil
	}
	output, exitCode := answer(command)
	return []byte(output), exitCode, nil
}

// Unenforced implements provider.States.
func (r *Runtime) Unenforced(_ *corev1.Pod, c *corev1.Container, have cri.Container) (cpu, memory bool) {
	want := inForce(c)
	if have.Resources == nil {
		return false, false
	}
	return want.CPURequestMilli != have.Resources.CPURequestMilli || want.CPULimitMilli != have.Resources.CPULimitMilli,
		want.MemoryLimit != have.Resources.MemoryLimit
}

// ResizeContainer implements provider.Containers.
func (r *Runtime) ResizeContainer(ctx context.Context, _ *corev1.Pod, spec *corev1.Container, id string) error {
	if err := r.call(ctx, "resize", " "+spec.Name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, c := r.container(id)
	if c == nil || c.State != cri.Running {
		return fmt.Errorf("container %s: %w", id, cri.ErrNotFound)
	}
	c.Resources = inForce(spec)
	return nil
}

func inForce(c *corev1.Container) *cri.Resources {
	return &cri.Resources{
		CPURequestMilli: c.Resources.Requests.Cpu().MilliValue(), CPULimitMilli: c.Resources.Limits.Cpu().MilliValue(),
		MemoryLimit: c.Resources.Limits.Memory().Value(),
	}
}

// Exit lets the newest running container of that name end with the code, and reports whether there was one.
func (r *Runtime) Exit(uid types.UID, name string, code int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[uid]
	if p == nil {
		return false
	}
	for i := range p.Containers {
		if c := &p.Containers[i]; c.Name == name && c.State == cri.Running {
			r.end(p, c, code)
			return true
		}
	}
	return false
}

// end ends a running container. Callers hold mu.
func (r *Runtime) end(p *cri.Pod, c *cri.Container, code int32) {
	c.State, c.ExitCode, c.FinishedAt, c.Reason = cri.Exited, code, time.Now(), "Error"
	if code == 0 {
		c.Reason = "Completed"
	}
	c.Message = r.behaviours[c.Image].Message
	close(r.exits[c.ID])
	delete(r.exits, c.ID)
	r.emit(cri.ContainerStopped, p.UID, c.ID)
}

// container finds a container. Callers hold mu.
func (r *Runtime) container(id string) (*cri.Pod, *cri.Container) {
	for _, p := range r.pods {
		for i := range p.Containers {
			if p.Containers[i].ID == id {
				return p, &p.Containers[i]
			}
		}
	}
	return nil, nil
}

func (r *Runtime) nameOf(id string) string {
	if _, c := r.container(id); c != nil {
		return c.Name
	}
	return "?"
}
