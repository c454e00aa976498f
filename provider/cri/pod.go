package cri

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is what the runtime has of a pod.
type Pod struct {
	UID       types.UID
	Namespace string
	Name      string
	// Sandboxes are sorted by attempt, newest first.
	Sandboxes []Sandbox
	// Containers of all sandboxes are sorted by creation, newest first.
	Containers []Container
}

// Sandbox is what holds a pod's namespaces.
type Sandbox struct {
	ID string
	// Attempt counts from 0.
	Attempt uint32
	// Ready is false once the sandbox has been stopped or its pause process has died.
	Ready     bool
	CreatedAt time.Time
	// IPs are the pod's addresses, the primary one first; none with host networking. Runtime.Pods does not fill them.
	IPs []string
	// RuntimeHandler is the handler that runs it; "" is the runtime's default.
	RuntimeHandler string
	Labels         map[string]string
	Annotations    map[string]string
}

// ContainerState is where a container is in its life.
type ContainerState string

const (
	// Created means that the container exists and has not been started.
	Created ContainerState = "Created"
	// Running means that its process runs.
	Running ContainerState = "Running"
	// Exited means that its process has ended, or could not be started.
	Exited ContainerState = "Exited"
	// Unknown means that the runtime lost track of it.
	Unknown ContainerState = "Unknown"
)

// Container is what the runtime knows about a container. Runtime.Pods fills only the fields up to Annotations.
type Container struct {
	ID        string
	SandboxID string
	Name      string
	// Image is the image by a name that the runtime knows, as a kubelet shows it in the pod's status.
	Image string
	// ImageID is what PullImage returned for it; two containers with the same ImageID run the same image.
	ImageID string
	// ImageRef is the image by digest, the imageID of a pod's status.
	ImageRef string
	// Attempt is the restart count.
	Attempt     uint32
	State       ContainerState
	CreatedAt   time.Time
	Hash        string
	Labels      map[string]string
	Annotations map[string]string

	// StartedAt is zero for a container that was never started; FinishedAt is zero for one that has not ended.
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int32
	// Reason and Message tell how it ended, in the kubelet's words: "Completed", "Error", "OOMKilled", "ContainerCannotRun".
	Reason  string
	Message string
	// LogPath is the host's absolute path of the log file.
	LogPath string
	// TerminationMessagePath and TerminationMessagePolicy are those of the container's specification.
	TerminationMessagePath   string
	TerminationMessagePolicy corev1.TerminationMessagePolicy
	// TerminationMessageFile is the host's file that is mounted at TerminationMessagePath; "" if there is none.
	TerminationMessageFile string
	// TerminationGracePeriod is the pod's, in seconds, at the time of creation; nil if it was not recorded.
	TerminationGracePeriod *int64
	// Resources are those that the runtime enforces; nil if it does not tell.
	Resources *Resources
	// User is who the first process runs as; nil if the runtime does not tell.
	User *corev1.ContainerUser
	// StopSignal is the signal that ends the container; "" if the runtime does not tell.
	StopSignal corev1.Signal
}

// Resources are the limits of a container as its cgroup has them; zero means no limit or unknown.
type Resources struct {
	// CPURequestMilli is computed from the cpu shares, in thousandths of a CPU.
	CPURequestMilli int64
	// CPULimitMilli is computed from quota and period, in thousandths of a CPU.
	CPULimitMilli int64
	// MemoryLimit is in bytes.
	MemoryLimit int64
}

// Sandbox returns the newest sandbox.
func (p Pod) Sandbox() (Sandbox, bool) {
	if len(p.Sandboxes) == 0 {
		return Sandbox{}, false
	}
	return p.Sandboxes[0], true
}

// Container returns the newest container of that name.
func (p Pod) Container(name string) (Container, bool) {
	for _, c := range p.Containers {
		if c.Name == name {
			return c, true
		}
	}
	return Container{}, false
}

// EventType says what happened to a container.
type EventType string

const (
	// ContainerCreated, ContainerStarted, ContainerStopped and ContainerDeleted are sent for sandboxes as well; then
	// Event.ContainerID is the sandbox's.
	ContainerCreated EventType = "Created"
	ContainerStarted EventType = "Started"
	ContainerStopped EventType = "Stopped"
	ContainerDeleted EventType = "Deleted"
	// Resync means that events may have been missed: everything must be looked at anew. It has no UID. The first event of a
	// subscription is a Resync.
	Resync EventType = "Resync"
)

// Event tells that something happened to a container of a pod; what it looks like now must be asked for.
type Event struct {
	Type        EventType
	UID         types.UID
	ContainerID string
}
