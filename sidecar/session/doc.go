// Package session keeps the FUSE sessions of a node's pods: it resolves a pod's volumes, has the broker open a session for each
// of them, and injects the sidecars that serve them. What a volume is and how a sidecar looks is package sidecar's; mounts are
// the broker's; when a pod is prepared or ends is decided by the node's engine.
//
// # The life of a pod's sessions
//
//	Prepare   volumes resolved → sessions open → sidecars injected into a copy of the pod
//	Started   the sidecar's session is ready: a client serves, and a real request was answered
//	trouble   a client that cannot start gets the volume anew, so that a mended Secret helps; a lost session is opened again
//	Release   sessions closed, mounts gone
//
// # Guarantees
//
//   - A pod that has been prepared can be prepared again after a restart of this process although its claim or Secret cannot be
//     read any more, as long as its sessions live.
//   - Nothing secret is written to disk or into the pod.
package session
