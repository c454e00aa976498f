package cri

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxSpec is a sandbox to run.
type SandboxSpec struct {
	// Config is made by SandboxConfig. Its log directory is created by RunSandbox.
	Config *runtimeapi.PodSandboxConfig
	// RuntimeHandler comes from the pod's RuntimeClass; "" is the runtime's default.
	RuntimeHandler string
}

// ContainerSpec is a container to create.
type ContainerSpec struct {
	// Config is made by ContainerConfig.
	Config *runtimeapi.ContainerConfig
	// Sandbox is the configuration of the sandbox that it is created in, as it was when that was run.
	Sandbox *runtimeapi.PodSandboxConfig
}

// SandboxInput is what SandboxConfig needs beyond the pod.
type SandboxInput struct {
	// Attempt is 0 for a pod's first sandbox.
	Attempt uint32
	// LogDir is the directory of all pods' logs, usually /var/log/pods.
	LogDir string
	// CgroupParent is the pod's cgroup as cgroup.Manager names it; "" leaves the choice to the runtime.
	CgroupParent string
	// DNS is made by DNS.Config; nil makes the runtime use the host's resolv.conf.
	DNS *runtimeapi.DNSConfig
	// ClusterDomain ends a fully qualified host name, for example "cluster.local"; "" makes it end after "svc".
	ClusterDomain string
	// Host describes the machine.
	Host Host
	// UserNamespace maps the ids of a pod with hostUsers: false; such a pod is refused without it.
	UserNamespace *runtimeapi.UserNamespace
}

// ContainerInput is what ContainerConfig needs beyond the pod and the container.
type ContainerInput struct {
	// Attempt is the restart count, 0 for the first container of its name.
	Attempt uint32
	// Image is the image as the runtime has it (Runtime.ImageStatus).
	Image Image
	// Command and Args are those of the container with $(VAR) expanded.
	Command []string
	Args    []string
	// Env are the resolved variables, in order.
	Env []EnvVar
	// Mounts are the resolved volume mounts. The hosts file and the termination log are not among them.
	Mounts []Mount
	// HostsFile is the host's file to be mounted at /etc/hosts, unless one of Mounts is there already; "" mounts none.
	HostsFile string
	// TerminationLog is the host's existing, empty file to be mounted at the container's terminationMessagePath; "" mounts none.
	TerminationLog string
	// Devices are made available in the container.
	Devices []Device
	// CDIDevices are names of devices by the Container Device Interface.
	CDIDevices []string
	// Annotations are added to the container's own.
	Annotations map[string]string
	// TargetID is the container whose process namespace an ephemeral container shares; "" shares none.
	TargetID string
	// Supervised: the container's first process replaces the others when they die. When memory is short, the kernel kills one process
	// and not the whole container, as control groups of version 1 always do, and the first process has room to make the others more
	// likely to be killed than itself.
	Supervised bool
	// SeccompRoot is the directory of the Localhost seccomp profiles, usually /var/lib/kubelet/seccomp.
	SeccompRoot string
	// SeccompDefault applies the runtime's profile where a pod asks for none. The kubelet's default is false (unconfined).
	SeccompDefault bool
	// Host describes the machine.
	Host Host
	// UserNamespace must be the one of the sandbox.
	UserNamespace *runtimeapi.UserNamespace
}

// EnvVar is an environment variable with its value.
type EnvVar struct {
	Name  string
	Value string
}

// Mount is a host's path, or an image, in a container.
type Mount struct {
	// Name is for messages only; it is usually the volume's.
	Name          string
	ContainerPath string
	HostPath      string
	ReadOnly      bool
	// RecursiveReadOnly makes also the mounts below read-only; it requires ReadOnly and no propagation.
	RecursiveReadOnly bool
	// Propagation is None when empty. Bidirectional is refused unless the container is privileged.
	Propagation corev1.MountPropagationMode
	// SELinuxRelabel makes the runtime relabel the content.
	SELinuxRelabel bool
	// Image mounts an image's content instead of HostPath; ImageSubPath is a directory in it.
	Image        *runtimeapi.ImageSpec
	ImageSubPath string
}

// Device is a device node in a container.
type Device struct {
	HostPath      string
	ContainerPath string
	// Permissions is a subset of "rwm".
	Permissions string
}

// Image is an image that the runtime has.
type Image struct {
	// ID identifies it in the runtime; "" means that the runtime does not have the image.
	ID          string
	RepoTags    []string
	RepoDigests []string
	// Size is in bytes.
	Size uint64
	// UID is the image's numeric user; nil if Username is set or nothing is said, which means root.
	UID *int64
	// Username is the image's user by name.
	Username string
	// Pinned images are never collected.
	Pinned bool
}

// Host describes the machine as far as configurations depend on it.
type Host struct {
	// Memory is the machine's capacity in bytes; the OOM score of a Burstable pod is relative to it.
	Memory int64
	// CgroupV2 says that only the unified hierarchy is there.
	CgroupV2 bool
	// SwapAccounting says that the memory controller limits swap.
	SwapAccounting bool
	// HugePageSizes are the page sizes that the hugetlb controller limits, as "2MB" and "1GB".
	HugePageSizes []string
	// AppArmor and SELinux say whether the kernel enforces them.
	AppArmor bool
	SELinux  bool
	// MaskedPaths are hidden from containers besides the usual ones; they depend on the machine's CPUs.
	MaskedPaths []string
}
