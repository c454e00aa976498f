package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/session"
)

// preparer is the keeper of sessions as the engine wants it.
type preparer struct{ keeper *session.Keeper }

var _ provider.Preparer = preparer{}

func (p preparer) Prepare(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	prepared, err := p.keeper.Prepare(ctx, pod)
	var unusable *sidecar.Error
	if errors.As(err, &unusable) {
		return nil, &provider.PrepareError{Reason: "FailedMount", Message: unusable.Error(), Err: err}
	}
	return prepared, err
}

func (p preparer) Started(pod *corev1.Pod, container string) (bool, string) {
	return p.keeper.Started(pod, container)
}

func (p preparer) Owes(pod *corev1.Pod, container string) bool { return p.keeper.Owes(pod, container) }

func (p preparer) Conditions(pod *corev1.Pod) []corev1.PodCondition { return p.keeper.Conditions(pod) }

func (p preparer) Release(ctx context.Context, pod *corev1.Pod, grace time.Duration) error {
	return p.keeper.Release(ctx, pod, grace)
}

// runtimeHealth is the runtime's own opinion in the kubelet's words.
type runtimeHealth struct{ runtime *cri.Runtime }

func (h runtimeHealth) Health(ctx context.Context) (runtime, network error) {
	status, err := h.runtime.Status(ctx)
	if err != nil {
		return fmt.Errorf("container runtime is down: %s", cri.Message(err)), nil
	}
	if c := status.Runtime; !c.OK {
		runtime = fmt.Errorf("container runtime not ready: RuntimeReady=false reason:%s message:%s", c.Reason, c.Message)
	}
	if c := status.Network; !c.OK {
		network = fmt.Errorf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message)
	}
	return runtime, network
}

func runtimeHandlers(status cri.Status) []corev1.NodeRuntimeHandler {
	handlers := make([]corev1.NodeRuntimeHandler, 0, len(status.Handlers))
	for _, h := range status.Handlers {
		handlers = append(handlers, corev1.NodeRuntimeHandler{Name: h.Name, Features: &corev1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: &h.RecursiveReadOnlyMounts,
			UserNamespaces:          &h.UserNamespaces,
		}})
	}
	return handlers
}
