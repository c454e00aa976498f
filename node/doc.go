// Package node is the node that the cluster sees: the Node object with its lease and conditions, the CSINode object, and
// the kubelet's HTTPS API. It runs no pods and knows no runtime: what it serves comes through the interfaces that are
// declared here (Health, Pods, Logs, Streams, Runner, Stats), and it imports no sibling package.
//
// # Terms
//
//   - Host: the facts about the machine that a Node object reports: processors, memory, kernel, operating system.
//   - Health: what the container runtime says about itself and its network.
//   - Pressure: too little memory, disk or process ids, as the kubelet understands these words.
//
// # Guarantees
//
//   - The Node object is built by a pure function (Build) and registered under the identity system:node:<name>; it carries
//     nothing that the NodeRestriction admission plugin would refuse.
//   - A Node object that somebody deletes comes back within seconds.
//   - The end of this process changes nothing in the API: pods stay as they are, and the node becomes NotReady when its
//     lease runs out.
//   - Every request to the HTTPS API is authenticated and authorized, /healthz included, with the kubelet's own attribute
//     mapping; there is no anonymous access.
//
// # Non-goals
//
// The kubelet's own log files (/logs/), profiling and /metrics/cadvisor are not served.
package node
