package provider

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
)

// Reasons of events, as the kubelet names them.
const (
	eventPulling          = "Pulling"
	eventPulled           = "Pulled"
	eventFailed           = "Failed"
	eventBackOff          = "BackOff"
	eventInspectFailed    = "InspectFailed"
	eventNeverPull        = "ErrImageNeverPull"
	eventCreated          = "Created"
	eventStarted          = "Started"
	eventKilling          = "Killing"
	eventUnhealthy        = "Unhealthy"
	eventProbeWarning     = "ProbeWarning"
	eventFailedMount      = "FailedMount"
	eventFailedSandbox    = "FailedCreatePodSandBox"
	eventSandboxChanged   = "SandboxChanged"
	eventNetworkNotReady  = "NetworkNotReady"
	eventFailedKill       = "FailedKillPod"
	eventFailedPostStart  = "FailedPostStartHook"
	eventFailedPreStop    = "FailedPreStopHook"
	eventDeadlineExceeded = "DeadlineExceeded"
)

// podEvents records the events of one pod. What it is asked to say once is not repeated until something else was said under the
// same reason, so that a retry every few seconds is one event and not hundreds.
type podEvents struct {
	recorder record.EventRecorder
	said     map[string]string
}

func newPodEvents(recorder record.EventRecorder) *podEvents {
	return &podEvents{recorder: recorder, said: make(map[string]string)}
}

// pod records an event about the pod.
func (e *podEvents) pod(pod *corev1.Pod, kind, reason, format string, args ...any) {
	e.recorder.Eventf(podReference(pod, ""), kind, reason, format, args...)
}

// once records a warning about the pod unless it was the last one under this reason. Only the actor calls it.
func (e *podEvents) once(pod *corev1.Pod, reason, message string) {
	if e.said[reason] == message {
		return
	}
	e.said[reason] = message
	e.pod(pod, corev1.EventTypeWarning, reason, "%s", message)
}

// mended lets a later failure under the reason be said anew.
func (e *podEvents) mended(reason string) { delete(e.said, reason) }

// container records an event about a container.
func (e *podEvents) container(pod *corev1.Pod, name, kind, reason, format string, args ...any) {
	e.recorder.Eventf(podReference(pod, fieldPath(pod, name)), kind, reason, format, args...)
}

// podReference is the object that an event is about; UID and version are the API pod's.
func podReference(pod *corev1.Pod, field string) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion, FieldPath: field,
	}
}

// fieldPath names a container within its pod, as the kubelet's events do.
func fieldPath(pod *corev1.Pod, name string) string {
	c, kind := findContainer(pod, name)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("spec.%s{%s}", [...]string{"initContainers", "containers", "ephemeralContainers"}[kind], name)
}

// quietRecorder drops the events with which virtual-kubelet tells that it called the provider: they would be three writes to the
// API server per pod that tell a user nothing.
type quietRecorder struct{ record.EventRecorder }

func (q quietRecorder) Event(object runtime.Object, kind, reason, message string) {
	if !aboutProvider(reason) {
		q.EventRecorder.Event(object, kind, reason, message)
	}
}

func (q quietRecorder) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	if !aboutProvider(reason) {
		q.EventRecorder.Eventf(object, kind, reason, format, args...)
	}
}

func (q quietRecorder) AnnotatedEventf(object runtime.Object, annotations map[string]string, kind, reason, format string, args ...any) {
	if !aboutProvider(reason) {
		q.EventRecorder.AnnotatedEventf(object, annotations, kind, reason, format, args...)
	}
}

func aboutProvider(reason string) bool {
	return strings.HasPrefix(reason, "Provider") && strings.HasSuffix(reason, "Success")
}
