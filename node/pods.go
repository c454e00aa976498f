package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pods are the pods of this node as the API knows them, with the newest status: no sidecar that was injected on the way is
// in them, so none can be reached through this API. What it returns is shared and must not be changed.
type Pods interface {
	Pods() []*corev1.Pod
	PodByName(namespace, name string) (*corev1.Pod, bool)
}

// RunningPods is a Pods that can also ask the runtime, for /runningpods. Without it that route answers from the statuses.
type RunningPods interface {
	RunningPods(ctx context.Context) ([]*corev1.Pod, error)
}

func (s *Server) servePods(w http.ResponseWriter, r *http.Request) {
	if s.options.Pods == nil {
		unserved(w)
		return
	}
	writePods(w, r, s.options.Pods.Pods())
}

func (s *Server) serveRunningPods(w http.ResponseWriter, r *http.Request) {
	if s.options.Pods == nil {
		unserved(w)
		return
	}
	if asker, ok := s.options.Pods.(RunningPods); ok {
		pods, err := asker.RunningPods(r.Context())
		if err != nil {
			writeText(w, http.StatusInternalServerError, err.Error())
			return
		}
		writePods(w, r, pods)
		return
	}
	var running []*corev1.Pod
	for _, pod := range s.options.Pods.Pods() {
		if hasRunningContainer(pod) {
			running = append(running, pod)
		}
	}
	writePods(w, r, running)
}

func hasRunningContainer(pod *corev1.Pod) bool {
	for _, statuses := range containerStatuses(pod) {
		for i := range statuses {
			if statuses[i].State.Running != nil {
				return true
			}
		}
	}
	return false
}

func containerStatuses(pod *corev1.Pod) [3][]corev1.ContainerStatus {
	return [3][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses,
		pod.Status.InitContainerStatuses,
		pod.Status.EphemeralContainerStatuses,
	}
}

func writePods(w http.ResponseWriter, r *http.Request, pods []*corev1.Pod) {
	list := corev1.PodList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"},
		Items:    make([]corev1.Pod, 0, len(pods)),
	}
	for _, pod := range pods {
		list.Items = append(list.Items, *pod)
	}
	writeJSON(w, r, list)
}

func writeJSON(w http.ResponseWriter, r *http.Request, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(data); err != nil {
		log.G(r.Context()).WithError(err).Debug("caller left before the answer was written")
	}
}

func unserved(w http.ResponseWriter) {
	writeText(w, http.StatusNotImplemented, "this node does not serve the endpoint")
}

// podOf finds the pod that a request names, and refuses a UID that is not the present pod's: a caller that names one means
// that very pod and not a namesake.
func (s *Server) podOf(r *http.Request) (*corev1.Pod, error) {
	if s.options.Pods == nil {
		return nil, &publicError{ErrNotFound, "pod does not exist"}
	}
	pod, ok := s.options.Pods.PodByName(r.PathValue("namespace"), r.PathValue("pod"))
	if !ok {
		return nil, &publicError{ErrNotFound, "pod does not exist"}
	}
	if uid := types.UID(r.PathValue("uid")); uid != "" && uid != pod.UID {
		return nil, &publicError{ErrNotFound, "pod not found"}
	}
	return pod, nil
}

// containerOf finds the pod and makes sure that the container is one of its own.
func (s *Server) containerOf(r *http.Request) (*corev1.Pod, string, error) {
	pod, err := s.podOf(r)
	if err != nil {
		return nil, "", err
	}
	container := r.PathValue("container")
	if !hasContainer(pod, container) {
		return nil, "", &publicError{ErrNotFound, fmt.Sprintf("container %q not found in pod %q", container, pod.Name)}
	}
	return pod, container, nil
}

func hasContainer(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return true
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}
