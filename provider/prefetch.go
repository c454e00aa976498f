package provider

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// prefetch makes the images available of the containers that will be started first, while the sandbox is being created. An image
// that is behind an init container waits for its turn: the pod may never get there.
func (a *actor) prefetch(ctx context.Context) {
	eachContainer(a.running, func(c *corev1.Container, kind containerKind) bool {
		if kind == ephemeralKind {
			return false
		}
		a.fetch(ctx, c)
		return kind == appKind || isSidecar(c)
	})
}

// fetch makes one image available. The container is busy meanwhile, so it is started after that.
func (a *actor) fetch(ctx context.Context, c *corev1.Container) {
	m, name := a.memory(c.Name), c.Name
	if m.image != "" || a.busy()[name] || a.backoffs()[name].After(time.Now()) {
		return
	}
	pod := a.running
	a.begin(ctx, "image/"+name, operation{container: name}, startTimeout, func(ctx context.Context) func() {
		image, err := a.e.images.ensure(ctx, pod, c, a.events)
		return func() {
			switch {
			case err == nil:
				m.image = image
			case ctx.Err() != context.Canceled:
				a.startFailed(ctx, name, err)
			}
		}
	})
}
