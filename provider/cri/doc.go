// Package cri runs the containers of pods on a container runtime (containerd, CRI-O) through the Kubernetes Container Runtime
// Interface, version 1. It decides nothing about pods: what to run, restart or stop is the engine's business; this package
// says what is there, does what it is told, and translates a pod into the configurations that the runtime understands.
//
// # Terms
//
//   - Runtime: a CRI endpoint. One Runtime sees only the sandboxes of one node: those whose label NodeLabel bears its name.
//   - Sandbox: what holds a pod's namespaces. A pod has one that is ready; older ones are leftovers to be removed.
//   - Attempt: how often a sandbox or a container has been created before; for a container it is the restart count.
//
// # What survives a restart of this process
//
// Everything. Labels and annotations of sandboxes and containers are those that the kubelet writes (io.kubernetes.pod.uid,
// io.kubernetes.container.hash, …), so tools that know a kubelet's containers know ours, and nothing is kept beside them.
//
// # Pure functions
//
// SandboxConfig, ContainerConfig, DNS.Config, HostsFile and ParseKeyring compute from their arguments alone; golden files in
// testdata show what they make of a pod.
package cri
