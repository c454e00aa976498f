// Package machine makes a host in a host: a set of Linux namespaces in which a cluster lives, its nodes (mount, cgroup
// and UTS namespaces nested in it), the link to the real host, and the way to start processes in there. It knows nothing
// about Kubernetes.
//
// Machine: the network, pid, mount, IPC and UTS namespaces that one process (pause, pid 1 in there) holds. When that
// process is killed the kernel kills every other process of the machine, and with the last one go its mounts, links,
// addresses and packet filter rules. That makes stopping safe however the cluster came to its end.
//
// Node: the mount, cgroup and UTS namespaces that a holder process (pause again) keeps inside a machine. Its root mount is
// shared, as on a real host, and a propagation domain of its own; /run is empty; the usual paths of a node are bound to
// directories of the node.
//
// Slot: a number from 1 to 254 that gives the machine the addresses 10.99.SLOT.0/24.
package machine
