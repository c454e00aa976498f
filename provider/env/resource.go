package env

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resource returns the value of a resourceFieldRef: a request or limit of the container that the reference names (of c if it
// names none), divided by the divisor and rounded up. A limit of cpu, memory or ephemeral-storage that is not set is the
// pod's own limit, or else what the node can allocate. c may be nil if the reference names a container.
func Resource(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" {
		if c = findContainer(pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resourceFieldRef %q names no container", ref.Resource)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	if !supportedResource(name) {
		return "", fmt.Errorf("container resource %q: %w", ref.Resource, ErrUnsupported)
	}
	switch kind {
	case "requests":
		return divide(corev1.ResourceName(name), c.Resources.Requests[corev1.ResourceName(name)], ref.Divisor)
	case "limits":
		return divide(corev1.ResourceName(name), limit(pod, c, corev1.ResourceName(name), allocatable), ref.Divisor)
	}
	return "", fmt.Errorf("container resource %q: %w", ref.Resource, ErrUnsupported)
}

func supportedResource(name string) bool {
	switch corev1.ResourceName(name) {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	}
	return strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
}

// limit applies the defaults. Huge pages have none, since they are never overcommitted.
func limit(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName, allocatable corev1.ResourceList) resource.Quantity {
	if q := c.Resources.Limits[name]; !q.IsZero() || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
		return q
	}
	if pod.Spec.Resources != nil && name != corev1.ResourceEphemeralStorage {
		if q := pod.Spec.Resources.Limits[name]; !q.IsZero() {
			return q
		}
	}
	return allocatable[name]
}

func divide(name corev1.ResourceName, q, divisor resource.Quantity) (string, error) {
	if divisor.IsZero() {
		divisor = *resource.NewQuantity(1, resource.DecimalSI)
	}
	if divisor.Sign() < 0 {
		return "", fmt.Errorf("divisor %s of resource %s: %w", divisor.String(), name, ErrUnsupported)
	}
	value, by := q.Value(), divisor.Value()
	if name == corev1.ResourceCPU {
		value, by = q.MilliValue(), divisor.MilliValue()
	}
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(by))), 10), nil
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}
