package object

import (
	corev1 "k8s.io/api/core/v1"
)

// kind is the singular resource name, as it stands in the API's NotFound message of a node: secret "x" not found.
type kind string

const (
	secretKind    kind = "secret"
	configMapKind kind = "configmap"
)

// reference identifies an object that a pod uses.
type reference struct {
	kind      kind
	namespace string
	name      string
}

// references returns every object that the pod names: environment, volumes and pull secrets.
func references(pod *corev1.Pod) map[reference]struct{} {
	refs := collector{namespace: pod.Namespace, found: map[reference]struct{}{}}
	for i := range pod.Spec.ImagePullSecrets {
		refs.add(secretKind, pod.Spec.ImagePullSecrets[i].Name)
	}
	for i := range pod.Spec.InitContainers {
		refs.environment(pod.Spec.InitContainers[i].EnvFrom, pod.Spec.InitContainers[i].Env)
	}
	for i := range pod.Spec.Containers {
		refs.environment(pod.Spec.Containers[i].EnvFrom, pod.Spec.Containers[i].Env)
	}
	for i := range pod.Spec.EphemeralContainers {
		refs.environment(pod.Spec.EphemeralContainers[i].EnvFrom, pod.Spec.EphemeralContainers[i].Env)
	}
	for i := range pod.Spec.Volumes {
		refs.volume(&pod.Spec.Volumes[i])
	}
	return refs.found
}

type collector struct {
	namespace string
	found     map[reference]struct{}
}

// add ignores empty names, which the API accepts in pull secrets.
func (c *collector) add(k kind, name string) {
	if name != "" {
		c.found[reference{k, c.namespace, name}] = struct{}{}
	}
}

func (c *collector) environment(from []corev1.EnvFromSource, vars []corev1.EnvVar) {
	for i := range from {
		if ref := from[i].SecretRef; ref != nil {
			c.add(secretKind, ref.Name)
		}
		if ref := from[i].ConfigMapRef; ref != nil {
			c.add(configMapKind, ref.Name)
		}
	}
	for i := range vars {
		source := vars[i].ValueFrom
		if source == nil {
			continue
		}
		if ref := source.SecretKeyRef; ref != nil {
			c.add(secretKind, ref.Name)
		}
		if ref := source.ConfigMapKeyRef; ref != nil {
			c.add(configMapKind, ref.Name)
		}
	}
}

func (c *collector) volume(v *corev1.Volume) {
	switch {
	case v.Secret != nil:
		c.add(secretKind, v.Secret.SecretName)
	case v.ConfigMap != nil:
		c.add(configMapKind, v.ConfigMap.Name)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if ref := v.Projected.Sources[i].Secret; ref != nil {
				c.add(secretKind, ref.Name)
			}
			if ref := v.Projected.Sources[i].ConfigMap; ref != nil {
				c.add(configMapKind, ref.Name)
			}
		}
	}
}
