package node

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// Validate tells what the API server would refuse, before it is asked, in words that name the option. Errors wrap
// ErrInvalid.
func (o Object) Validate() error {
	if problems := validation.IsDNS1123Subdomain(o.Name); len(problems) > 0 {
		return fmt.Errorf("%w: node name %q: %s", ErrInvalid, o.Name, problems[0])
	}
	if len(o.Addresses) == 0 {
		return fmt.Errorf("%w: node %s has no address", ErrInvalid, o.Name)
	}
	if o.Version == "" {
		return fmt.Errorf("%w: node %s has no version", ErrInvalid, o.Name)
	}
	for key, value := range o.Labels {
		if err := validateLabel(key, value); err != nil {
			return err
		}
	}
	for _, taint := range o.Taints {
		if err := validateTaint(taint); err != nil {
			return err
		}
	}
	return nil
}

// validateLabel applies the rules of the NodeRestriction admission plugin
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction): under kubernetes.io and
// k8s.io a node may set only the labels that are known to be a kubelet's.
func validateLabel(key, value string) error {
	if problems := validation.IsQualifiedName(key); len(problems) > 0 {
		return fmt.Errorf("%w: label %q: %s", ErrInvalid, key, problems[0])
	}
	if problems := validation.IsValidLabelValue(value); len(problems) > 0 {
		return fmt.Errorf("%w: label %s=%q: %s", ErrInvalid, key, value, problems[0])
	}
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return nil
	}
	if inDomain(domain, corev1.LabelNamespaceNodeRestriction) ||
		((inDomain(domain, "kubernetes.io") || inDomain(domain, "k8s.io")) && !kubeletapis.IsKubeletLabel(key)) {
		return fmt.Errorf("%w: label %s: a node must not set it itself (admission plugin NodeRestriction); "+
			"choose a name outside kubernetes.io and k8s.io", ErrInvalid, key)
	}
	return nil
}

func inDomain(domain, of string) bool {
	return domain == of || strings.HasSuffix(domain, "."+of)
}

func validateTaint(taint corev1.Taint) error {
	if problems := validation.IsQualifiedName(taint.Key); len(problems) > 0 {
		return fmt.Errorf("%w: taint %q: %s", ErrInvalid, taint.Key, problems[0])
	}
	if problems := validation.IsValidLabelValue(taint.Value); len(problems) > 0 {
		return fmt.Errorf("%w: taint %s=%q: %s", ErrInvalid, taint.Key, taint.Value, problems[0])
	}
	switch taint.Effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		return nil
	}
	return fmt.Errorf("%w: taint %s: effect %q is not NoSchedule, PreferNoSchedule or NoExecute", ErrInvalid, taint.Key, taint.Effect)
}

// ParseTaint reads kubectl's notation key=value:Effect or key:Effect.
func ParseTaint(text string) (corev1.Taint, error) {
	left, effect, ok := strings.Cut(text, ":")
	if !ok {
		return corev1.Taint{}, fmt.Errorf("%w: taint %q: want key=value:Effect or key:Effect", ErrInvalid, text)
	}
	key, value, _ := strings.Cut(left, "=")
	taint := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
	return taint, validateTaint(taint)
}
