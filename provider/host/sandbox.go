package host

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

// RunSandbox implements provider.Sandboxes.
func (h *Host) RunSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (string, error) {
	handler, err := h.runtimeHandler(ctx, pod)
	if err != nil {
		return "", err
	}
	if h.o.Cgroups != nil {
		if _, err := h.o.Cgroups.Create(pod); err != nil {
			return "", fmt.Errorf("create control group of pod: %w", err)
		}
	}
	config, warnings, err := h.sandboxConfig(pod, attempt)
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		h.o.Recorder.Event(pod, corev1.EventTypeWarning, "DNSConfigForming", w)
	}
	id, err := h.o.Runtime.RunSandbox(ctx, &cri.SandboxSpec{Config: config, RuntimeHandler: handler})
	if err != nil {
		return "", h.blameNetwork(ctx, pod, err)
	}
	return id, nil
}

// blameNetwork tells a sandbox that failed because the node has no network yet from one that failed by itself: the former is not
// the pod's failure.
func (h *Host) blameNetwork(ctx context.Context, pod *corev1.Pod, err error) error {
	if pod.Spec.HostNetwork || ctx.Err() != nil {
		return err
	}
	status, unknown := h.o.Runtime.Status(ctx)
	if unknown != nil || status.Network.OK {
		return err
	}
	return fmt.Errorf("%w: %s", provider.ErrRuntimeNotReady, status.Network.Message)
}

func (h *Host) runtimeHandler(ctx context.Context, pod *corev1.Pod) (string, error) {
	class := pod.Spec.RuntimeClassName
	if class == nil || *class == "" {
		return "", nil
	}
	if h.o.RuntimeHandler == nil {
		return "", fmt.Errorf("runtimeClassName %q: this node has only its runtime's default handler", *class)
	}
	return h.o.RuntimeHandler(ctx, *class)
}

// sandboxConfig returns the configuration of the pod's sandbox. It is the same each time, so that a sandbox that another process
// has run needs no record.
func (h *Host) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, []string, error) {
	dns, warnings := h.o.DNS.Config(pod)
	in := cri.SandboxInput{
		Attempt: attempt, LogDir: h.o.LogDir, DNS: dns, ClusterDomain: h.o.DNS.ClusterDomain, Host: h.o.Machine,
	}
	if h.o.Cgroups != nil {
		in.CgroupParent = h.o.Cgroups.Name(pod.UID)
	}
	config, err := cri.SandboxConfig(pod, in)
	return config, warnings, err
}

// StopSandbox implements provider.Sandboxes.
func (h *Host) StopSandbox(ctx context.Context, id string) error {
	return h.o.Runtime.StopSandbox(ctx, id)
}

// RemoveSandbox implements provider.Sandboxes.
func (h *Host) RemoveSandbox(ctx context.Context, id string) error {
	return h.o.Runtime.RemoveSandbox(ctx, id)
}

// RemoveLogs implements provider.Sandboxes.
func (h *Host) RemoveLogs(_ context.Context, pod *corev1.Pod) error {
	if pod.Namespace == "" || pod.Name == "" || pod.UID == "" {
		return fmt.Errorf("%w: logs of a pod without a name", provider.ErrUnknownPod)
	}
	if err := os.RemoveAll(cri.PodLogDir(h.o.LogDir, pod)); err != nil {
		return fmt.Errorf("remove logs: %w", err)
	}
	return nil
}
