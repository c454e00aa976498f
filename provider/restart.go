package provider

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// restartsAfter reports whether a container of the pod is started again after it has ended with the exit code. A container's own
// policy goes before the pod's, and its rules, in order, before its policy. Init containers take Always for OnFailure, because
// their work is done once.
func restartsAfter(pod *corev1.Pod, c *corev1.Container, kind containerKind, exitCode int32) bool {
	if kind == ephemeralKind {
		return false
	}
	if c.RestartPolicy == nil {
		return byPolicy(pod.Spec.RestartPolicy, kind, exitCode)
	}
	for _, rule := range c.RestartPolicyRules {
		if rule.Action == corev1.ContainerRestartRuleActionRestart && matches(rule.ExitCodes, exitCode) {
			return true
		}
	}
	if isSidecar(c) {
		return true
	}
	return byPolicy(corev1.RestartPolicy(*c.RestartPolicy), kind, exitCode)
}

func byPolicy(policy corev1.RestartPolicy, kind containerKind, exitCode int32) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	default:
		return kind == appKind || exitCode != 0
	}
}

func matches(rule *corev1.ContainerRestartRuleOnExitCodes, exitCode int32) bool {
	if rule == nil {
		return false
	}
	in := slices.Contains(rule.Values, exitCode)
	if rule.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn {
		return !in
	}
	return in
}

// runsOnce reports whether a container that has succeeded once is never started again, not even in a new sandbox.
func runsOnce(pod *corev1.Pod, c *corev1.Container) bool {
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	return policy == corev1.RestartPolicyOnFailure
}
