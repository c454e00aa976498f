package cri

import (
	"context"
	"errors"
	"fmt"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunSandbox creates and starts a sandbox and returns its id. The directory of the pod's logs is made first.
func (r *Runtime) RunSandbox(ctx context.Context, spec *SandboxSpec) (string, error) {
	meta := spec.Config.GetMetadata()
	if dir := spec.Config.GetLogDirectory(); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("create log directory: %w", err)
		}
	}
	// Setting up the network is part of it; the kubelet grants it twice the usual time as well.
	ctx, cancel := context.WithTimeout(ctx, 2*r.opts.Timeout)
	defer cancel()
	resp, err := r.client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: spec.Config, RuntimeHandler: spec.RuntimeHandler})
	if err != nil {
		return "", wrap(err, "run sandbox of pod %s/%s", meta.GetNamespace(), meta.GetName())
	}
	if resp.PodSandboxId == "" {
		return "", errors.New("run sandbox: the runtime returned no id")
	}
	return resp.PodSandboxId, nil
}

// StopSandbox kills what still runs in the sandbox and gives its network back. Stopping it again, or one that does not exist,
// is not an error.
func (r *Runtime) StopSandbox(ctx context.Context, id string) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return ignoreMissing(wrap(err, "stop sandbox %s", id))
}

// RemoveSandbox removes the sandbox and its containers. Removing one that does not exist is not an error.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return ignoreMissing(wrap(err, "remove sandbox %s", id))
}

// UpdateSandboxResources tells the runtime about changed limits of a pod; runtimes that do not know the call do not need it.
func (r *Runtime) UpdateSandboxResources(ctx context.Context, id string, overhead, resources *runtimeapi.LinuxContainerResources) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{
		PodSandboxId: id, Overhead: overhead, Resources: resources,
	})
	if err = wrap(err, "update resources of sandbox %s", id); errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
