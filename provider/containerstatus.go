package provider

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// Reasons of a waiting or terminated container, as the kubelet names them.
const (
	reasonCreating       = "ContainerCreating"
	reasonInitializing   = "PodInitializing"
	reasonCrashLoop      = "CrashLoopBackOff"
	reasonPullBackOff    = "ImagePullBackOff"
	reasonCreateConfig   = "CreateContainerConfigError"
	reasonCreate         = "CreateContainerError"
	reasonRun            = "RunContainerError"
	reasonPostStart      = "PostStartHookError"
	reasonStatusUnknown  = "ContainerStatusUnknown"
	containerIDScheme    = "containerd://"
	exitCodeUnknown      = 137
	messageStatusUnknown = "The container could not be located when the pod was terminated"
)

// maxMessages is how many bytes of termination messages a pod's status may hold in total, as of the kubelet.
const maxMessages = 12 * 1024

// containers computes the statuses of one list of containers, in the order of the specification.
func (f facts) containers(specs []corev1.Container, old []corev1.ContainerStatus, kind containerKind) []corev1.ContainerStatus {
	if len(specs) == 0 {
		return nil
	}
	statuses := make([]corev1.ContainerStatus, len(specs))
	for i := range specs {
		statuses[i] = f.container(&specs[i], findStatus(old, specs[i].Name), kind)
	}
	return statuses
}

// container computes the status of one container from what the runtime has of it: its newest instance is the state, the one
// before the last termination.
func (f facts) container(c *corev1.Container, old *corev1.ContainerStatus, kind containerKind) corev1.ContainerStatus {
	instances := f.instances(c.Name)
	if len(instances) == 0 {
		return f.missing(c, old, kind)
	}
	s := f.fromRuntime(c, instances[0])
	if len(instances) > 1 && instances[1].State == cri.Exited {
		s.LastTerminationState = f.stateOf(instances[1])
	} else if old != nil && old.ContainerID == s.ContainerID {
		s.LastTerminationState = old.LastTerminationState
	} else if old != nil && old.State.Terminated != nil {
		s.LastTerminationState = old.State
	}
	if old != nil {
		s.RestartCount = max(s.RestartCount, old.RestartCount)
		keepTerminated(&s.State, old)
		keepTerminated(&s.LastTerminationState, old)
	}
	f.applyWaiting(&s)
	f.applyProbes(c, &s, instances[0], kind)
	return s
}

// keepTerminated keeps what has been told about the end of a container: it cannot change, and the files that say it are removed
// with the volumes.
func keepTerminated(state *corev1.ContainerState, old *corev1.ContainerStatus) {
	for _, before := range []*corev1.ContainerStateTerminated{old.State.Terminated, old.LastTerminationState.Terminated} {
		if now := state.Terminated; now != nil && before != nil && before.ContainerID == now.ContainerID && before.Reason != reasonStatusUnknown {
			state.Terminated = before
			return
		}
	}
}

// instances returns the newest two containers of that name.
func (f facts) instances(name string) []cri.Container {
	var found []cri.Container
	for _, c := range f.state.Containers {
		if c.Name == name {
			if found = append(found, c); len(found) == 2 {
				break
			}
		}
	}
	return found
}

func (f facts) fromRuntime(c *corev1.Container, r cri.Container) corev1.ContainerStatus {
	granted := c
	if f.granted != nil {
		if g, _ := findContainer(f.granted, c.Name); g != nil {
			granted = g
		}
	}
	s := corev1.ContainerStatus{
		Name:               c.Name,
		State:              f.stateOf(r),
		RestartCount:       int32(r.Attempt),
		Image:              r.Image,
		ImageID:            r.ImageRef,
		ContainerID:        containerIDScheme + r.ID,
		AllocatedResources: granted.Resources.Requests,
		Resources:          resourcesOf(granted, r),
		VolumeMounts:       mountsOf(c),
		User:               r.User,
	}
	if s.Image == "" {
		s.Image = c.Image
	}
	if r.StopSignal != "" {
		s.StopSignal = &r.StopSignal
	}
	return s
}

// stateOf translates the state of one instance. While its postStart hook runs, a container is not reported as running: whoever
// waits for it to run waits for the hook as well.
func (f facts) stateOf(r cri.Container) corev1.ContainerState {
	switch {
	case r.State == cri.Running && f.hooked[r.Name], r.State == cri.Created:
		return f.waitingState(r.Name)
	case r.State == cri.Running:
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: *stamp(r.StartedAt)}}
	case r.State == cri.Exited:
		return corev1.ContainerState{Terminated: f.terminated(r)}
	default:
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: reasonStatusUnknown, ExitCode: exitCodeUnknown, ContainerID: containerIDScheme + r.ID,
			Message: messageStatusUnknown,
		}}
	}
}

func (f facts) terminated(r cri.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: r.ExitCode, Reason: r.Reason, Message: r.Message, ContainerID: containerIDScheme + r.ID,
	}
	if !r.StartedAt.IsZero() {
		t.StartedAt = *stamp(r.StartedAt)
	}
	if !r.FinishedAt.IsZero() {
		t.FinishedAt = *stamp(r.FinishedAt)
	}
	n := len(f.pod.Spec.InitContainers) + len(f.pod.Spec.Containers) + len(f.pod.Spec.EphemeralContainers)
	if limit := maxMessages / n; len(t.Message) > limit {
		t.Message = t.Message[:limit]
	}
	return t
}

// waitingState is the state of a container whose turn has not come.
func (f facts) waitingState(name string) corev1.ContainerState {
	if w, ok := f.waiting[name]; ok {
		return corev1.ContainerState{Waiting: &w}
	}
	reason := reasonCreating
	if len(f.pod.Spec.InitContainers) > 0 {
		reason = reasonInitializing
	}
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: f.message}}
}

// missing computes the status of a container that the runtime does not have: it was never created, or has been removed.
func (f facts) missing(c *corev1.Container, old *corev1.ContainerStatus, kind containerKind) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, State: f.waitingState(c.Name), VolumeMounts: mountsOf(c)}
	started := false
	s.Started = &started
	if old == nil {
		return s
	}
	if old.State.Terminated != nil {
		s = *old.DeepCopy()
		f.applyWaiting(&s)
		return s
	}
	s.RestartCount, s.LastTerminationState = old.RestartCount, old.LastTerminationState
	if old.State.Running == nil {
		return s
	}
	s.LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: reasonStatusUnknown, ExitCode: exitCodeUnknown, StartedAt: old.State.Running.StartedAt,
		Message: "The container could not be located when the pod was deleted.  The container used to be Running",
	}}
	if f.pod.DeletionTimestamp == nil && kind != ephemeralKind {
		s.RestartCount++
	}
	return s
}

// applyWaiting makes a container that has ended and is to be started again wait, with the reason why that has not happened.
func (f facts) applyWaiting(s *corev1.ContainerStatus) {
	w, ok := f.waiting[s.Name]
	if !ok || f.ended || s.State.Running != nil {
		return
	}
	if s.State.Terminated != nil {
		s.LastTerminationState = s.State
	}
	s.State = corev1.ContainerState{Waiting: &w}
}

// applyProbes sets started and ready. A regular init container is ready once it has succeeded.
func (f facts) applyProbes(c *corev1.Container, s *corev1.ContainerStatus, r cri.Container, kind containerKind) {
	running := s.State.Running != nil
	started := running && f.started[r.ID]
	if kind == initKind && !isSidecar(c) {
		started = running
		s.Started = &started
		s.Ready = s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		return
	}
	s.Started = &started
	s.Ready = started && f.ready[r.ID] && kind != ephemeralKind
}

// closeContainers makes the containers of a pod that has ended terminated. What is not known to have succeeded has failed.
func (f facts) closeContainers(s *corev1.PodStatus) {
	lost := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: reasonStatusUnknown, ExitCode: exitCodeUnknown, Message: messageStatusUnknown,
	}}
	initialized := len(f.pod.Spec.InitContainers) == 0 || anyBegun(s.ContainerStatuses)
	last := 0
	for i := range s.InitContainerStatuses {
		if st := &s.InitContainerStatuses[i]; st.State.Waiting == nil || st.LastTerminationState.Terminated != nil {
			last = i
		}
	}
	for i := range s.InitContainerStatuses {
		if st := &s.InitContainerStatuses[i]; i <= last && st.State.Terminated == nil {
			st.State, st.Ready, st.Started = lost, false, new(bool)
		}
	}
	for i := range s.ContainerStatuses {
		if st := &s.ContainerStatuses[i]; initialized && st.State.Terminated == nil {
			st.State, st.Ready, st.Started = lost, false, new(bool)
		}
	}
}

// resourcesOf returns the resources of a container, as they are in force where the runtime tells.
func resourcesOf(c *corev1.Container, r cri.Container) *corev1.ResourceRequirements {
	res := c.Resources.DeepCopy()
	if r.State != cri.Running || r.Resources == nil {
		return res
	}
	// Below these values the kernel has no finer ones, so the specification's are kept, as the kubelet does.
	const leastLimit, leastRequest = 10, 2
	set := func(list corev1.ResourceList, name corev1.ResourceName, actual, least int64, q *resource.Quantity) {
		have, asked := list[name]
		if !asked || actual == 0 || (actual <= least && have.MilliValue() <= least) || have.Cmp(*q) == 0 {
			return
		}
		list[name] = *q
	}
	milli := func(v int64) *resource.Quantity { return resource.NewMilliQuantity(v, resource.DecimalSI) }
	set(res.Limits, corev1.ResourceCPU, r.Resources.CPULimitMilli, leastLimit, milli(r.Resources.CPULimitMilli))
	set(res.Requests, corev1.ResourceCPU, r.Resources.CPURequestMilli, leastRequest, milli(r.Resources.CPURequestMilli))
	set(res.Limits, corev1.ResourceMemory, r.Resources.MemoryLimit, 0, resource.NewQuantity(r.Resources.MemoryLimit, resource.BinarySI))
	return res
}

func mountsOf(c *corev1.Container) []corev1.VolumeMountStatus {
	mounts := make([]corev1.VolumeMountStatus, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		st := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		mounts = append(mounts, st)
	}
	return mounts
}

func findStatus(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

// zeroTime reports whether a time in a status has never been set.
func zeroTime(t *metav1.Time) bool { return t == nil || t.IsZero() }
