package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
)

// Logs reads what containers have written.
type Logs interface {
	// ContainerLogs writes the log of one container instance, chosen with the options and in the format of PodLogOptions; a
	// nil writer drops its stream. With Follow it ends when the instance or ctx ends. containerID is the runtime's id,
	// without the runtime's name.
	ContainerLogs(ctx context.Context, pod *corev1.Pod, container, containerID string, o *corev1.PodLogOptions, stdout, stderr io.Writer) error
}

func (s *Server) serveLogs(w http.ResponseWriter, r *http.Request) {
	if s.options.Logs == nil {
		unserved(w)
		return
	}
	options, err := ParseLogOptions(r.URL.Query())
	if err != nil {
		writeText(w, http.StatusBadRequest, `{"message": "Unable to decode query."}`)
		return
	}
	if err := ValidateLogOptions(options); err != nil {
		writeText(w, http.StatusUnprocessableEntity, `{"message": "Invalid request."}`)
		return
	}
	pod, container, err := s.containerOf(r)
	if err != nil {
		writeText(w, statusOf(err), logNotFound(r, err))
		return
	}
	containerID, err := LoggedContainer(pod, container, options.Previous)
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	s.copyLogs(w, r, pod, container, containerID, options)
}

// logNotFound is the kubelet's text, which for logs names the pod.
func logNotFound(r *http.Request, err error) string {
	if err.Error() == "pod does not exist" {
		return fmt.Sprintf("pod %q does not exist", r.PathValue("pod"))
	}
	return err.Error()
}

func (s *Server) copyLogs(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, container, containerID string, o *corev1.PodLogOptions) {
	w.Header().Set("Content-Type", "text/plain")
	out := &flushWriter{w: w, controller: http.NewResponseController(w)}
	var stdout, stderr io.Writer = out, out
	switch {
	case o.Stream == nil:
	case *o.Stream == corev1.LogStreamStdout:
		stderr = nil
	case *o.Stream == corev1.LogStreamStderr:
		stdout = nil
	}
	if o.Follow {
		// The caller is to see the answer begin although the container may be silent for long.
		out.flush()
	}
	err := s.options.Logs.ContainerLogs(r.Context(), pod, container, containerID, o, stdout, stderr)
	if err == nil || r.Context().Err() != nil {
		return
	}
	if out.begun {
		log.G(r.Context()).WithError(err).WithField("namespace", pod.Namespace).WithField("pod", pod.Name).
			WithField("container", container).Warn("container log ended early")
		return
	}
	writeText(w, http.StatusBadRequest, err.Error())
}

// LoggedContainer finds the id of the container instance whose log is meant, or says in the kubelet's words why there is none.
// It is pure.
func LoggedContainer(pod *corev1.Pod, container string, previous bool) (string, error) {
	status, ok := statusOfContainer(pod, container)
	if !ok {
		return "", logError("container %q in pod %q is not available", container, pod.Name)
	}
	last := status.LastTerminationState.Terminated
	lastID := ""
	if last != nil {
		lastID = bareID(last.ContainerID)
	}
	state := status.State
	switch {
	case previous && lastID == "":
		return "", logError("previous terminated container %q in pod %q not found", container, pod.Name)
	case previous:
		return lastID, nil
	case state.Running != nil:
		return bareID(status.ContainerID), nil
	case state.Terminated != nil && state.Terminated.ContainerID != "":
		return bareID(state.Terminated.ContainerID), nil
	case lastID != "":
		// The next instance has not come to life: the last words are the previous one's.
		return lastID, nil
	case state.Terminated != nil || last != nil:
		return "", logError("container %q in pod %q is terminated", container, pod.Name)
	case state.Waiting != nil:
		return "", logError("container %q in pod %q is waiting to start: %s", container, pod.Name, waitingReason(state.Waiting.Reason))
	}
	return "", logError("container %q in pod %q is waiting to start - no logs yet", container, pod.Name)
}

func logError(format string, args ...any) error {
	return &publicError{ErrBadRequest, fmt.Sprintf(format, args...)}
}

func waitingReason(reason string) string {
	switch reason {
	case "ErrImagePull":
		return "image can't be pulled"
	case "ImagePullBackOff":
		return "trying and failing to pull image"
	}
	return reason
}

func statusOfContainer(pod *corev1.Pod, name string) (corev1.ContainerStatus, bool) {
	for _, statuses := range containerStatuses(pod) {
		for i := range statuses {
			if statuses[i].Name == name {
				return statuses[i], true
			}
		}
	}
	return corev1.ContainerStatus{}, false
}

// bareID takes the runtime's name off containerd://<id>.
func bareID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}

// flushWriter sends each piece at once: a follower wants lines, not full buffers.
type flushWriter struct {
	w          io.Writer
	controller *http.ResponseController
	begun      bool
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.begun = true
	n, err := f.w.Write(p)
	if err == nil {
		f.flush()
	}
	return n, err
}

func (f *flushWriter) flush() {
	f.begun = true
	// A writer that cannot flush still writes.
	_ = f.controller.Flush()
}
