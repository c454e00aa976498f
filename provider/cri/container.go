package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer creates a container in a sandbox and returns its id. The directory of its logs is made first.
func (r *Runtime) CreateContainer(ctx context.Context, sandboxID string, spec *ContainerSpec) (string, error) {
	name := spec.Config.GetMetadata().GetName()
	if dir := spec.Sandbox.GetLogDirectory(); dir != "" && spec.Config.GetLogPath() != "" {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, spec.Config.LogPath)), 0o755); err != nil {
			return "", fmt.Errorf("create log directory of container %s: %w", name, err)
		}
	}
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandboxID, Config: spec.Config, SandboxConfig: spec.Sandbox,
	})
	if err != nil {
		return "", wrap(err, "create container %s", name)
	}
	if resp.ContainerId == "" {
		return "", fmt.Errorf("create container %s: the runtime returned no id", name)
	}
	return resp.ContainerId, nil
}

// StartContainer starts a created container.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	return wrap(err, "start container %s", id)
}

// StopContainer sends the container its stop signal and kills it after grace; it returns when the container has ended. A grace
// below one second kills at once, because the interface counts whole seconds. Stopping one that has ended or does not exist is
// not an error.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	if grace < 0 {
		grace = 0
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout+grace)
	defer cancel()
	_, err := r.client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(grace / time.Second)})
	return ignoreMissing(wrap(err, "stop container %s", id))
}

// RemoveContainer removes a container, killing it if it runs. Its log file stays. Removing one that does not exist is not an
// error.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return ignoreMissing(wrap(err, "remove container %s", id))
}

// UpdateContainer changes the limits of a running container.
func (r *Runtime) UpdateContainer(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: resources})
	return wrap(err, "update resources of container %s", id)
}

// ReopenLog makes the runtime write to a new log file after the old one has been moved away.
func (r *Runtime) ReopenLog(ctx context.Context, id string) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.client.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	return wrap(err, "reopen log of container %s", id)
}

// ContainerStatus returns one container with all its fields; ErrNotFound if it does not exist.
func (r *Runtime) ContainerStatus(ctx context.Context, id string) (Container, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return Container{}, wrap(err, "status of container %s", id)
	}
	if resp.Status == nil {
		return Container{}, errors.New("status of container: the runtime returned none")
	}
	return fromStatus(resp.Status), nil
}
