package sidecar

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ownNames says what of a pod's spec tells a client who its servers are, "" if nothing does. A client sends the metadata engine's password to
// whoever has the engine's name, so in a pod whose author must not read the volume's Secret the author must not give that name away. Options of
// the resolver, as ndots, are the pod's own affair.
func ownNames(pod *corev1.Pod) string {
	dns := pod.Spec.DNSConfig
	switch {
	case len(pod.Spec.HostAliases) > 0:
		return "hostAliases"
	case pod.Spec.DNSPolicy == corev1.DNSNone:
		return "dnsPolicy None"
	case dns != nil && len(dns.Nameservers) > 0:
		return "dnsConfig.nameservers"
	case dns != nil && len(dns.Searches) > 0:
		return "dnsConfig.searches"
	}
	return ""
}

// auditNames refuses pods that name their clients' servers themselves.
func auditNames(pod *corev1.Pod) error {
	if why := ownNames(pod); why != "" {
		return fmt.Errorf("the pod has %s, which would tell its sidecars who their servers are: %w", why, ErrAltered)
	}
	return nil
}

// admitNames is auditNames before there is a pod, in words for its author. A node of ours gives its sidecars names of its own.
func (o InjectOptions) admitNames(pod *corev1.Pod) error {
	why := ownNames(pod)
	if why == "" || o.Guest == nil && o.Driver == "" {
		return nil
	}
	return &Error{
		Reason: ReasonPodUnsupported, Object: podObject(pod), Field: "spec",
		Message: fmt.Sprintf("has %s, by which its author could have the sidecars send the volume's credentials to a server of his own", why),
		Cure:    "remove it, or use the volume without a sidecar in the pod: label the pod sidemount.io/inject=false where nodes have the CSI driver, or run it on a virtual node",
	}
}

// steering are variables by which a program chooses whom to trust, or has itself watched.
var steering = []string{"PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "GODEBUG"}

// steers tells whether a variable changes what a client runs, whom it trusts or which way its requests go.
func steers(variable string) bool {
	return slices.Contains(steering, variable) || strings.HasPrefix(variable, "LD_") || strings.HasSuffix(strings.ToLower(variable), "_proxy")
}
