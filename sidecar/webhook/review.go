package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/sidecar"
)

const (
	// maxReview is more than the API server accepts as an object (3 MiB), with the review around it.
	maxReview = 8 << 20
	// maxPod bounds an injected pod in bytes of JSON: etcd refuses objects of 1.5 MiB, and the status needs its share.
	maxPod = 1 << 20
)

func (w *Webhook) serve(rw http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(rw, "want POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxReview))
	if err != nil {
		http.Error(rw, "read the review: "+err.Error(), http.StatusBadRequest)
		return
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil || review.Request == nil {
		http.Error(rw, "not an AdmissionReview", http.StatusBadRequest)
		return
	}
	response, outcome, err := w.review(r.Context(), review.Request, r.URL.Path)
	w.o.Observe(outcome)
	if err != nil {
		log.G(r.Context()).WithError(err).WithField("namespace", review.Request.Namespace).Warn("review failed")
		// Not an answer but a failure: the API server then does what the failure policy says.
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	response.UID = review.Request.UID
	answer := admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response}
	rw.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(rw).Encode(answer); err != nil {
		log.G(r.Context()).WithError(err).Warn("answer a review")
	}
}

// review decides about one object by the path that it came to. The error means that nothing can be decided now.
func (w *Webhook) review(ctx context.Context, r *admissionv1.AdmissionRequest, path string) (*admissionv1.AdmissionResponse, Outcome, error) {
	allowed := &admissionv1.AdmissionResponse{Allowed: true}
	if r.Operation != admissionv1.Create || r.SubResource != "" || r.Resource.Group != "" || r.Resource.Resource != "pods" {
		return allowed, Skipped, nil
	}
	pod := new(corev1.Pod)
	if err := json.Unmarshal(r.Object.Raw, pod); err != nil {
		return nil, Failed, fmt.Errorf("read the pod: %w", err)
	}
	// A pod that is being created has neither its namespace nor, with generateName, its name in it.
	if pod.Namespace == "" {
		pod.Namespace = r.Namespace
	}
	if pod.Name == "" {
		pod.Name = pod.GenerateName
	}
	logger := log.G(ctx).WithField("namespace", pod.Namespace).WithField("pod", pod.Name)
	if why := w.refusal(pod); why != "" {
		logger.WithField("reason", why).Debug("pod left as it is")
		return w.skip(allowed, r, pod, path == RequiredPath || pod.Labels[InjectLabel] == "true")
	}
	out, warnings, err := w.inject(ctx, pod, path)
	allowed.Warnings = warnings
	var e *sidecar.Error
	switch {
	case errors.As(err, &e) && !e.Transient:
		logger.WithError(err).Info("pod denied")
		return deny(err), Denied, nil
	case err != nil:
		return nil, Failed, err
	case out == nil:
		return w.skip(allowed, r, pod, path == RequiredPath)
	}
	if allowed.Patch, err = patch(r.Object.Raw, pod, out); err != nil {
		return nil, Failed, err
	}
	if allowed.Patch == nil {
		return allowed, Skipped, nil
	}
	kind := admissionv1.PatchTypeJSONPatch
	allowed.PatchType = &kind
	logger.WithField("volumes", out.Annotations[sidecar.InjectedAnnotation]).Info("pod injected")
	return allowed, Injected, nil
}

// skip answers for a pod that gets no sidecars. Where the cluster would refuse it without them, it is told that none are needed.
func (w *Webhook) skip(allowed *admissionv1.AdmissionResponse, r *admissionv1.AdmissionRequest, pod *corev1.Pod, demanded bool) (*admissionv1.AdmissionResponse, Outcome, error) {
	if !demanded {
		return allowed, Skipped, nil
	}
	out := pod.DeepCopy()
	metav1.SetMetaDataAnnotation(&out.ObjectMeta, ReviewedAnnotation, "true")
	changes, err := patch(r.Object.Raw, pod, out)
	if err != nil {
		return nil, Failed, err
	}
	if changes != nil {
		kind := admissionv1.PatchTypeJSONPatch
		allowed.Patch, allowed.PatchType = changes, &kind
	}
	return allowed, Skipped, nil
}

// inject returns the changed pod, or nil if there is nothing to change.
func (w *Webhook) inject(ctx context.Context, pod *corev1.Pod, path string) (*corev1.Pod, []string, error) {
	if sidecar.GuestVolumes(pod) != nil {
		return sidecar.Reinject(pod), nil, nil
	}
	if sidecar.HandedVolumes(pod, w.o.Driver) != nil {
		return sidecar.ReinjectHanded(pod, w.o.Driver), nil, nil
	}
	resolver, handed := w.o.Resolver, path == NodePath
	if handed {
		resolver = w.o.NodeResolver
	}
	outlined, err := resolver.Outline(ctx, pod)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := unknown(pod, outlined.Unknown, path == RequiredPath)
	if err != nil || len(outlined.Mounts) == 0 {
		return nil, warnings, err
	}
	mounts, options := outlined.Mounts, sidecar.InjectOptions{Driver: w.o.Driver}
	if handed {
		mounts = sidecar.Distinct(mounts)
	} else if options.Guest, err = w.o.Guest(ctx); err != nil {
		return nil, nil, fmt.Errorf("inject: %w", err)
	}
	out, err := sidecar.Inject(pod, mounts, options)
	if err != nil {
		return nil, nil, err
	}
	if w.o.Compatible {
		if out.Labels == nil {
			out.Labels = map[string]string{}
		}
		out.Labels[juicefsDone] = "true"
	}
	for _, m := range outlined.Mounts {
		warnings = append(warnings, m.Warnings...)
	}
	return out, warnings, bounded(out)
}

// unknown says what becomes of claims that nobody knows yet: a pod that has asked for injection must not go without it, nor one in a namespace that has.
func unknown(pod *corev1.Pod, volumes []string, required bool) ([]string, error) {
	if len(volumes) == 0 {
		return nil, nil
	}
	names := strings.Join(volumes, ", ")
	if required || pod.Labels[InjectLabel] == "true" {
		return nil, &sidecar.Error{
			Reason: sidecar.ReasonClaimNotFound, Object: "Pod " + pod.Namespace + "/" + pod.Name, Field: "spec.volumes[" + names + "]",
			Message: "asks for injection, or its namespace requires it, and has claims that do not exist yet, or have neither a StorageClass nor a PersistentVolume",
			Cure:    "create the claims before the pod",
		}
	}
	return []string{"volume " + names + ": its claim does not exist yet or has no StorageClass; if the volume is one of " +
		"Sidemount's, create the pod again when the claim is there"}, nil
}

func bounded(pod *corev1.Pod) error {
	b, err := json.Marshal(pod)
	if err != nil {
		return fmt.Errorf("encode the pod: %w", err)
	}
	if len(b) <= maxPod {
		return nil
	}
	return &sidecar.Error{
		Reason: sidecar.ReasonPodUnsupported, Object: "Pod " + pod.Namespace + "/" + pod.Name,
		Message: fmt.Sprintf("would have %d bytes with its sidecars, more than %d", len(b), maxPod),
		Cure:    "move environment and annotations into ConfigMaps, or use fewer volumes",
	}
}

func deny(err error) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: err.Error(),
	}}
}
