package cri

import (
	"net/netip"
	"path"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func fromSandbox(s *runtimeapi.PodSandbox) Sandbox {
	return Sandbox{
		ID:             s.Id,
		Attempt:        s.GetMetadata().GetAttempt(),
		Ready:          s.State == runtimeapi.PodSandboxState_SANDBOX_READY,
		CreatedAt:      fromNanos(s.CreatedAt),
		RuntimeHandler: s.RuntimeHandler,
		Labels:         s.Labels,
		Annotations:    s.Annotations,
	}
}

func fromContainer(c *runtimeapi.Container) Container {
	return Container{
		ID:          c.Id,
		SandboxID:   c.PodSandboxId,
		Name:        c.GetMetadata().GetName(),
		Image:       imageName(c.Image),
		ImageID:     firstOf(c.ImageId, c.ImageRef),
		ImageRef:    c.ImageRef,
		Attempt:     c.GetMetadata().GetAttempt(),
		State:       fromState(c.State),
		CreatedAt:   fromNanos(c.CreatedAt),
		Hash:        c.Annotations[annotationHash],
		Labels:      c.Labels,
		Annotations: c.Annotations,
	}
}

func fromStatus(s *runtimeapi.ContainerStatus) Container {
	c := Container{
		ID:          s.Id,
		Name:        s.GetMetadata().GetName(),
		Image:       imageName(s.Image),
		ImageID:     firstOf(s.ImageId, s.ImageRef),
		ImageRef:    s.ImageRef,
		Attempt:     s.GetMetadata().GetAttempt(),
		State:       fromState(s.State),
		CreatedAt:   fromNanos(s.CreatedAt),
		Hash:        s.Annotations[annotationHash],
		Labels:      s.Labels,
		Annotations: s.Annotations,
		StartedAt:   fromNanos(s.StartedAt),
		LogPath:     s.LogPath,
		Resources:   fromResources(s.GetResources().GetLinux()),
		User:        fromUser(s.GetUser().GetLinux()),
		StopSignal:  fromSignal(s.StopSignal),

		TerminationMessagePath:   s.Annotations[annotationMessagePath],
		TerminationMessagePolicy: corev1.TerminationMessagePolicy(s.Annotations[annotationMessagePolicy]),
	}
	if c.State == Exited {
		c.FinishedAt, c.ExitCode, c.Reason, c.Message = fromNanos(s.FinishedAt), s.ExitCode, s.Reason, s.Message
	}
	if grace, err := strconv.ParseInt(s.Annotations[annotationGracePeriod], 10, 64); err == nil {
		c.TerminationGracePeriod = &grace
	}
	for _, m := range s.Mounts {
		if c.TerminationMessagePath != "" && m.ContainerPath == path.Join("/", c.TerminationMessagePath) {
			c.TerminationMessageFile = m.HostPath
		}
	}
	return c
}

func fromState(s runtimeapi.ContainerState) ContainerState {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

// fromNanos keeps 0 as the zero time.
func fromNanos(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// imageName prefers the runtime's name for the image, as the kubelet does in a pod's status, to what the author wrote.
func imageName(s *runtimeapi.ImageSpec) string {
	return firstOf(s.GetImage(), s.GetUserSpecifiedImage())
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func fromResources(r *runtimeapi.LinuxContainerResources) *Resources {
	if r == nil {
		return nil
	}
	out := &Resources{MemoryLimit: r.MemoryLimitInBytes}
	if r.CpuShares > 0 {
		out.CPURequestMilli = sharesToMilli(r.CpuShares)
	}
	if r.CpuPeriod > 0 && r.CpuQuota > 0 {
		out.CPULimitMilli = r.CpuQuota * 1000 / r.CpuPeriod
	}
	return out
}

func fromUser(u *runtimeapi.LinuxContainerUser) *corev1.ContainerUser {
	if u == nil {
		return nil
	}
	return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
}

// addresses returns the addresses that parse, the primary one first; the runtime leaves them empty for host networking.
func addresses(n *runtimeapi.PodSandboxNetworkStatus) []string {
	var ips []string
	add := func(ip string) {
		if _, err := netip.ParseAddr(ip); err == nil {
			ips = append(ips, ip)
		}
	}
	add(n.GetIp())
	for _, ip := range n.GetAdditionalIps() {
		add(ip.GetIp())
	}
	return ips
}
