package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/node"
	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/logs"
)

// enginePods are the engine's pods as the HTTPS API shows them.
type enginePods struct{ engine *provider.Engine }

var _ node.Pods = enginePods{}

func (p enginePods) Pods() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, view := range p.engine.Views() {
		if !view.Absent {
			pods = append(pods, view.Snapshot())
		}
	}
	return pods
}

func (p enginePods) PodByName(namespace, name string) (*corev1.Pod, bool) {
	view, err := p.engine.ViewByName(namespace, name)
	if err != nil || view.Absent {
		return nil, false
	}
	return view.Snapshot(), true
}

// containerLogs reads logs where the runtime says that they are.
type containerLogs struct {
	engine  *provider.Engine
	runtime *cri.Runtime
	reader  logs.Reader
}

var _ node.Logs = (*containerLogs)(nil)

func (l *containerLogs) ContainerLogs(ctx context.Context, pod *corev1.Pod, _, containerID string, o *corev1.PodLogOptions, stdout, stderr io.Writer) error {
	path, err := l.path(ctx, pod, containerID)
	if err != nil {
		return err
	}
	return l.reader.Read(ctx, path, logs.FromPodOptions(o, time.Now()), func(ctx context.Context) (bool, error) {
		c, err := l.runtime.ContainerStatus(ctx, containerID)
		if errors.Is(err, cri.ErrNotFound) {
			return false, nil
		}
		// A runtime that is being restarted says nothing about the container.
		return err != nil || c.State == cri.Running || c.State == cri.Created, nil
	}, stdout, stderr)
}

func (l *containerLogs) path(ctx context.Context, pod *corev1.Pod, containerID string) (string, error) {
	if view, err := l.engine.View(pod.UID); err == nil {
		i := slices.IndexFunc(view.State.Containers, func(c cri.Container) bool { return c.ID == containerID })
		if i >= 0 && view.State.Containers[i].LogPath != "" {
			return view.State.Containers[i].LogPath, nil
		}
	}
	c, err := l.runtime.ContainerStatus(ctx, containerID)
	if errors.Is(err, cri.ErrNotFound) {
		return "", fmt.Errorf("unable to retrieve container logs for containerd://%s", containerID)
	}
	return c.LogPath, err
}

// Close waits for what reads.
func (l *containerLogs) Close() { l.reader.Close() }

// runtimeStreams opens streams at the runtime.
type runtimeStreams struct {
	engine  *provider.Engine
	runtime *cri.Runtime
}

var (
	_ node.Streams = runtimeStreams{}
	_ node.Runner  = runtimeStreams{}
)

func (s runtimeStreams) Exec(ctx context.Context, pod *corev1.Pod, container string, command []string, o node.StreamOptions) (*url.URL, error) {
	c, err := s.running(pod, container)
	if err != nil {
		return nil, err
	}
	u, err := s.runtime.ExecURL(ctx, c.ID, command, cri.StreamOptions(o))
	return u, translate(err)
}

func (s runtimeStreams) Attach(ctx context.Context, pod *corev1.Pod, container string, o node.StreamOptions) (*url.URL, error) {
	c, err := s.running(pod, container)
	if err != nil {
		return nil, err
	}
	// The runtime wants to hear what the container was created with, whatever the caller believes.
	o.TTY = hasTTY(pod, container)
	u, err := s.runtime.AttachURL(ctx, c.ID, cri.StreamOptions(o))
	return u, translate(err)
}

func (s runtimeStreams) PortForward(ctx context.Context, pod *corev1.Pod, ports []int32) (*url.URL, error) {
	view, err := s.engine.View(pod.UID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", node.ErrNotFound, err)
	}
	sandbox, ok := view.State.Sandbox()
	if !ok || !sandbox.Ready {
		return nil, fmt.Errorf("pod %q has no running sandbox: %w", pod.Name, node.ErrNotFound)
	}
	u, err := s.runtime.PortForwardURL(ctx, sandbox.ID, ports)
	return u, translate(err)
}

// runTimeout bounds a command of /run, whose caller says nothing about it.
const runTimeout = 4 * time.Hour

func (s runtimeStreams) Run(ctx context.Context, pod *corev1.Pod, container string, command []string) ([]byte, error) {
	c, err := s.running(pod, container)
	if err != nil {
		return nil, err
	}
	result, err := s.runtime.ExecSync(ctx, c.ID, command, runTimeout)
	if err != nil {
		return nil, translate(err)
	}
	output := slices.Concat(result.Stdout, result.Stderr)
	if result.ExitCode != 0 {
		return nil, fmt.Errorf("command %q exited with %d: %s", command, result.ExitCode, output)
	}
	return output, nil
}

func (s runtimeStreams) running(pod *corev1.Pod, container string) (cri.Container, error) {
	view, err := s.engine.View(pod.UID)
	if err != nil {
		return cri.Container{}, fmt.Errorf("%w: %w", node.ErrNotFound, err)
	}
	c, ok := view.State.Container(container)
	if !ok || c.State != cri.Running {
		return cri.Container{}, fmt.Errorf("container %q: %w", container, node.ErrNotFound)
	}
	return c, nil
}

func hasTTY(pod *corev1.Pod, container string) bool {
	for i := range pod.Spec.EphemeralContainers {
		if c := pod.Spec.EphemeralContainers[i].EphemeralContainerCommon; c.Name == container {
			return c.TTY
		}
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if c.Name == container {
			return c.TTY
		}
	}
	return false
}

func translate(err error) error {
	if errors.Is(err, cri.ErrNotFound) {
		return fmt.Errorf("%w: %w", node.ErrNotFound, err)
	}
	return err
}
