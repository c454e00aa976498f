package env

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Addresses are the addresses that the status fields of the downward API give, the primary one first.
type Addresses struct {
	// Pod addresses are known once the sandbox has a network.
	Pod []string
	// Host addresses are those of the node.
	Host []string
}

// Field returns the value of a fieldRef of an environment variable: everything that MetadataField knows, and the fields of
// spec and status that core/v1 EnvVarSource.fieldRef lists.
func Field(pod *corev1.Pod, ref *corev1.ObjectFieldSelector, addrs Addresses) (string, error) {
	if err := checkVersion(ref); err != nil {
		return "", err
	}
	switch ref.FieldPath {
	case "spec.nodeName", "spec.host":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(addrs.Host), nil
	case "status.hostIPs":
		return strings.Join(addrs.Host, ","), nil
	case "status.podIP":
		return first(addrs.Pod), nil
	case "status.podIPs":
		return strings.Join(addrs.Pod, ","), nil
	}
	return MetadataField(pod, ref)
}

// MetadataField returns the value of a fieldRef of a downward API volume: the pod's name, namespace, uid, labels and
// annotations, or one label or annotation by a subscript.
func MetadataField(pod *corev1.Pod, ref *corev1.ObjectFieldSelector) (string, error) {
	if err := checkVersion(ref); err != nil {
		return "", err
	}
	if path, key, ok := splitSubscript(ref.FieldPath); ok {
		return subscripted(pod, ref.FieldPath, path, key)
	}
	switch ref.FieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	}
	return "", fmt.Errorf("fieldPath %q: %w", ref.FieldPath, ErrUnsupported)
}

func subscripted(pod *corev1.Pod, fieldPath, path, key string) (string, error) {
	// Annotation keys are compared without regard to case where the API validates them, label keys are not.
	checked := key
	if path == "metadata.annotations" {
		checked = strings.ToLower(key)
	}
	if bad := validation.IsQualifiedName(checked); len(bad) > 0 {
		return "", fmt.Errorf("invalid key subscript in %s: %s", fieldPath, strings.Join(bad, ";"))
	}
	switch path {
	case "metadata.annotations":
		return pod.Annotations[key], nil
	case "metadata.labels":
		return pod.Labels[key], nil
	}
	return "", fmt.Errorf("fieldPath %q does not support subscript: %w", fieldPath, ErrUnsupported)
}

func checkVersion(ref *corev1.ObjectFieldSelector) error {
	if ref.APIVersion != "" && ref.APIVersion != "v1" {
		return fmt.Errorf("fieldRef of API version %q: %w", ref.APIVersion, ErrUnsupported)
	}
	return nil
}

// splitSubscript takes metadata.labels['key'] apart.
func splitSubscript(fieldPath string) (path, key string, ok bool) {
	rest, ok := strings.CutSuffix(fieldPath, "']")
	if !ok {
		return "", "", false
	}
	path, key, ok = strings.Cut(rest, "['")
	return path, key, ok && path != ""
}

// formatMap prints one key="value" a line, sorted by key: the form of the downward API for whole maps.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(lines, "\n")
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
