package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// recorder writes events to the API server, with a limit for each object that keeps a noisy pod from drowning the others.
type recorder struct {
	record.EventRecorder
	broadcaster record.EventBroadcaster
	client      kubernetes.Interface
}

func newRecorder(client kubernetes.Interface, nodeName string) *recorder {
	broadcaster := record.NewBroadcaster()
	source := corev1.EventSource{Component: "sidemount", Host: nodeName}
	return &recorder{EventRecorder: broadcaster.NewRecorder(scheme.Scheme, source), broadcaster: broadcaster, client: client}
}

// Run writes until ctx ends. What is recorded before is written then.
func (r *recorder) Run(ctx context.Context) error {
	watch := r.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: r.client.CoreV1().Events("")})
	<-ctx.Done()
	watch.Stop()
	r.broadcaster.Shutdown()
	return nil
}

// volumesNotRefreshed tells the user of a pod that a changed Secret or ConfigMap does not reach it.
func (r *recorder) volumesNotRefreshed(pod *corev1.Pod, err error) {
	r.Event(pod, corev1.EventTypeWarning, "FailedMount", err.Error())
}
