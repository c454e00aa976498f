package cri

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodLogDir returns the directory of a pod's logs below root, "<namespace>_<name>_<uid>" as a kubelet names it.
func PodLogDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))
}

// SandboxConfig makes the configuration of a pod's sandbox, field for field what a kubelet makes of the pod. The error matches
// ErrConfig.
func SandboxConfig(pod *corev1.Pod, in SandboxInput) (*runtimeapi.PodSandboxConfig, error) {
	linux, err := sandboxLinux(pod, in)
	if err != nil {
		return nil, err
	}
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: in.Attempt,
		},
		Labels:       podLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		LogDirectory: PodLogDir(in.LogDir, pod),
		DnsConfig:    in.DNS,
		PortMappings: portMappings(pod),
		Linux:        linux,
	}
	if !pod.Spec.HostNetwork {
		if cfg.Hostname, err = kernelHostname(pod, in.ClusterDomain); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func sandboxLinux(pod *corev1.Pod, in SandboxInput) (*runtimeapi.LinuxPodSandboxConfig, error) {
	namespaces, err := namespaceOptions(pod, in.UserNamespace)
	if err != nil {
		return nil, err
	}
	groups, policy, err := supplementalGroups(pod)
	if err != nil {
		return nil, err
	}
	security := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions:         namespaces,
		SupplementalGroups:       groups,
		SupplementalGroupsPolicy: policy,
		Privileged:               hasPrivileged(pod),
		// The pause process needs nothing; a pod that runs unconfined says so for its own containers only.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	sysctls := map[string]string{}
	if sc := pod.Spec.SecurityContext; sc != nil {
		security.SelinuxOptions = selinuxOptions(sc.SELinuxOptions)
		if sc.RunAsUser != nil {
			security.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
		}
		if sc.RunAsGroup != nil {
			security.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
		}
		for _, s := range sc.Sysctls {
			sysctls[s.Name] = s.Value
		}
	}
	return &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent:    in.CgroupParent,
		SecurityContext: security,
		Sysctls:         sysctls,
		Resources:       sandboxResources(pod, in.Host),
		Overhead:        overheadResources(pod, in.Host),
	}, nil
}

func hasPrivileged(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if sc := list[i].SecurityContext; sc != nil && isTrue(sc.Privileged) {
				return true
			}
		}
	}
	return false
}

// portMappings lists the ports of the containers; the network plugin maps those with a host port. One name in a container is
// one mapping.
func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for i := range pod.Spec.Containers {
		names := map[string]bool{}
		for _, p := range pod.Spec.Containers[i].Ports {
			name := p.Name
			if name == "" {
				name = fmt.Sprintf("%s-%s-%s:%d:%d", family(p.HostIP), p.Protocol, p.HostIP, p.ContainerPort, p.HostPort)
			}
			if names[name] {
				continue
			}
			names[name] = true
			out = append(out, &runtimeapi.PortMapping{
				Protocol: protocol(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
			})
		}
	}
	return out
}

func family(ip string) string {
	addr, err := netip.ParseAddr(ip)
	switch {
	case err != nil:
		return "any"
	case addr.Is4():
		return "v4"
	}
	return "v6"
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}
