package cri

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namespaceOptions say which namespaces a pod's containers share with the host and with each other.
func namespaceOptions(pod *corev1.Pod, userns *runtimeapi.UserNamespace) (*runtimeapi.NamespaceOption, error) {
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers && userns == nil {
		return nil, misfit("hostUsers: false needs user namespaces, which this node does not offer")
	}
	if userns == nil {
		userns = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}
	}
	out := &runtimeapi.NamespaceOption{
		Network:       podOrNode(pod.Spec.HostNetwork),
		Ipc:           podOrNode(pod.Spec.HostIPC),
		Pid:           runtimeapi.NamespaceMode_CONTAINER,
		UsernsOptions: userns,
	}
	if pod.Spec.HostPID {
		out.Pid = runtimeapi.NamespaceMode_NODE
	} else if isTrue(pod.Spec.ShareProcessNamespace) {
		out.Pid = runtimeapi.NamespaceMode_POD
	}
	return out, nil
}

func podOrNode(node bool) runtimeapi.NamespaceMode {
	if node {
		return runtimeapi.NamespaceMode_NODE
	}
	return runtimeapi.NamespaceMode_POD
}
