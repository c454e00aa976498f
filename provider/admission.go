package provider

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
)

// safeSysctls are the kernel parameters that a pod may set without harm to others, and which namespace keeps each of them apart.
var safeSysctls = map[string]string{
	"kernel.shm_rmid_forced":              "ipc",
	"net.ipv4.ip_local_port_range":        "net",
	"net.ipv4.ip_local_reserved_ports":    "net",
	"net.ipv4.ip_unprivileged_port_start": "net",
	"net.ipv4.ping_group_range":           "net",
	"net.ipv4.tcp_fin_timeout":            "net",
	"net.ipv4.tcp_keepalive_intvl":        "net",
	"net.ipv4.tcp_keepalive_probes":       "net",
	"net.ipv4.tcp_keepalive_time":         "net",
	"net.ipv4.tcp_rmem":                   "net",
	"net.ipv4.tcp_syncookies":             "net",
	"net.ipv4.tcp_wmem":                   "net",
}

// admit decides whether the node takes a pod that it has not run before. The scheduler has decided as well, but it may have been
// wrong about what the node has, or not have been asked. others are the pods that the node runs. Nil admits; a verdict makes the
// pod fail with a kubelet's reason. It is a pure function.
func admit(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *verdict {
	if v := admitSysctls(pod); v != nil {
		return v
	}
	if v := admitPorts(pod, others); v != nil {
		return v
	}
	return admitResources(pod, others, allocatable)
}

func admitSysctls(pod *corev1.Pod) *verdict {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		namespace, safe := safeSysctls[name]
		switch {
		case !safe:
			return &verdict{reason: "SysctlForbidden", message: fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name)}
		case namespace == "net" && pod.Spec.HostNetwork, namespace == "ipc" && pod.Spec.HostIPC:
			return &verdict{reason: "SysctlForbidden", message: fmt.Sprintf("forbidden sysctl: %q not allowed with host %s enabled", s.Name, namespace)}
		}
	}
	return nil
}

// hostPort is a port of the node that a pod uses.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

func (p hostPort) conflicts(o hostPort) bool {
	wildcard := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	return p.protocol == o.protocol && p.port == o.port && (p.ip == o.ip || wildcard(p.ip) || wildcard(o.ip))
}

func hostPorts(pod *corev1.Pod) []hostPort {
	var ports []hostPort
	eachContainer(pod, func(c *corev1.Container, kind containerKind) bool {
		for _, p := range c.Ports {
			if p.HostPort > 0 && (kind == appKind || isSidecar(c)) {
				ports = append(ports, hostPort{p.HostIP, p.Protocol, p.HostPort})
			}
		}
		return true
	})
	return ports
}

func admitPorts(pod *corev1.Pod, others []*corev1.Pod) *verdict {
	wanted := hostPorts(pod)
	if len(wanted) == 0 {
		return nil
	}
	for _, o := range others {
		for _, taken := range hostPorts(o) {
			if slices.ContainsFunc(wanted, taken.conflicts) {
				return &verdict{reason: "NodePorts", message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
			}
		}
	}
	return nil
}

// admitResources compares requests with what the node can allocate. Only resources that the node knows are compared.
func admitResources(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *verdict {
	if limit, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others)) >= limit.Value() {
		return outOf(corev1.ResourcePods, 1, int64(len(others)), limit.Value())
	}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		wanted, capacity := requests[name], allocatable[name]
		if wanted.IsZero() || capacity.IsZero() {
			continue
		}
		var used apiresource.Quantity
		for _, o := range others {
			used.Add(resource.PodRequests(o, resource.PodResourcesOptions{})[name])
		}
		total := used.DeepCopy()
		total.Add(wanted)
		switch {
		case total.Cmp(capacity) <= 0:
		case name == corev1.ResourceCPU:
			return outOf(name, wanted.MilliValue(), used.MilliValue(), capacity.MilliValue())
		default:
			return outOf(name, wanted.Value(), used.Value(), capacity.Value())
		}
	}
	return nil
}

func outOf(name corev1.ResourceName, wanted, used, capacity int64) *verdict {
	return &verdict{reason: "OutOf" + string(name), message: fmt.Sprintf(
		"Pod was rejected: Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, wanted, used, capacity)}
}
