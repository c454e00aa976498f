package cri

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// The labels and annotations are those of the kubelet's runtime manager, so that whoever knows a kubelet's containers (crictl,
// cAdvisor, log collectors, debuggers) knows ours.
const (
	labelPodName       = kubelettypes.KubernetesPodNameLabel
	labelPodNamespace  = kubelettypes.KubernetesPodNamespaceLabel
	labelPodUID        = kubelettypes.KubernetesPodUIDLabel
	labelContainerName = kubelettypes.KubernetesContainerNameLabel

	annotationDeletionGrace = "io.kubernetes.pod.deletionGracePeriod"
	annotationGracePeriod   = "io.kubernetes.pod.terminationGracePeriod"
	annotationHash          = "io.kubernetes.container.hash"
	annotationRestartCount  = "io.kubernetes.container.restartCount"
	annotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop       = "io.kubernetes.container.preStopHandler"
	annotationPorts         = "io.kubernetes.container.ports"
)

// HashContainer returns a hash of what cannot change in a container without starting it anew: its name and image. The kubelet
// compares the same two fields; limits are changed in place.
func HashContainer(c *corev1.Container) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q%q", c.Name, c.Image)
	return strconv.FormatUint(h.Sum64(), 16)
}

// podLabels are the pod's own labels and, stronger than those, what identifies it.
func podLabels(pod *corev1.Pod) map[string]string {
	labels := maps.Clone(pod.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelPodName] = pod.Name
	labels[labelPodNamespace] = pod.Namespace
	labels[labelPodUID] = string(pod.UID)
	labels[NodeLabel] = pod.Spec.NodeName
	return labels
}

func containerLabels(pod *corev1.Pod, c *corev1.Container) map[string]string {
	return map[string]string{
		labelPodName:       pod.Name,
		labelPodNamespace:  pod.Namespace,
		labelPodUID:        string(pod.UID),
		labelContainerName: c.Name,
		NodeLabel:          pod.Spec.NodeName,
	}
}

// containerAnnotations are what must be known of a container whose pod is no longer in the API.
func containerAnnotations(pod *corev1.Pod, c *corev1.Container, in ContainerInput) (map[string]string, error) {
	a := maps.Clone(in.Annotations)
	if a == nil {
		a = map[string]string{}
	}
	a[annotationHash] = HashContainer(c)
	a[annotationRestartCount] = strconv.FormatUint(uint64(in.Attempt), 10)
	a[annotationMessagePath] = c.TerminationMessagePath
	a[annotationMessagePolicy] = string(c.TerminationMessagePolicy)
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		a[annotationDeletionGrace] = strconv.FormatInt(*s, 10)
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		a[annotationGracePeriod] = strconv.FormatInt(*s, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		if err := annotateJSON(a, annotationPreStop, c.Lifecycle.PreStop); err != nil {
			return nil, err
		}
	}
	if len(c.Ports) > 0 {
		if err := annotateJSON(a, annotationPorts, c.Ports); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func annotateJSON(annotations map[string]string, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode annotation %s: %w", key, err)
	}
	annotations[key] = string(raw)
	return nil
}
