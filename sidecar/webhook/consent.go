package webhook

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/sidecar"
)

// Labels of pods. Those of namespaces are in the webhook's configuration, where the API server looks at them.
const (
	// InjectLabel asks for injection ("true") in any namespace, or refuses it ("false") in one that has it enabled.
	InjectLabel = "sidemount.io/inject"
	// juicefsRefusal and juicefsDone are the labels of the JuiceFS CSI driver: no injection, and injected already.
	juicefsRefusal = "disable.sidecar.juicefs.com/inject"
	juicefsDone    = "done.sidecar.juicefs.com/inject"
	// serverlessLabel is on virtual nodes of ours, which inject themselves.
	serverlessLabel = "sidemount.io/serverless"
)

// refusal says why a pod must be left alone, or "".
func (w *Webhook) refusal(pod *corev1.Pod) string {
	switch {
	case pod.Labels[InjectLabel] == "false":
		return "the pod does not want it"
	case w.o.Compatible && pod.Labels[juicefsRefusal] == "true":
		return "the pod does not want it"
	case w.o.Compatible && pod.Labels[juicefsDone] == "true" && sidecar.GuestVolumes(pod) == nil:
		return "somebody else has done it"
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return "a static pod has no service account"
	case pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows, pod.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows):
		return "Windows has no FUSE"
	case serverless(pod):
		return "the virtual node does it itself"
	}
	return ""
}

// serverless tells whether a pod can only be placed on a virtual node of ours.
func serverless(pod *corev1.Pod) bool {
	if pod.Spec.NodeSelector[serverlessLabel] == "true" {
		return true
	}
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	// Any one of the terms is enough for the scheduler, so all of them must say so.
	return len(terms) > 0 && !slices.ContainsFunc(terms, func(t corev1.NodeSelectorTerm) bool { return !demandsServerless(t) })
}

func demandsServerless(t corev1.NodeSelectorTerm) bool {
	return slices.ContainsFunc(t.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
		return r.Key == serverlessLabel && r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && r.Values[0] == "true"
	})
}
