// Package mountpod keeps the Mount Pods of one ordinary node: pods with an agent and a client, each of which serves one FUSE session that all
// pods of the node with the same volume share. It resolves no volumes, binds nothing into application pods and speaks no CSI.
//
// # Terms
//
//   - Share: a session with its Mount Pod, for one volume in one configuration. Volumes that differ in anything that the client or its pod
//     depends on, the content of the Secret included, are different shares.
//   - Reference: a target path that uses a share. The last reference that goes takes the share with it, after the volume's delay.
//   - Generation: counts the mounts that a share has had. It rises when a session was lost and had to be mounted anew, and binds of an
//     earlier generation are dead.
//
// # The life of a share
//
//	Acquire   reference and share recorded (intent first) → session opened at the broker → pod created → a client serves
//	trouble   pod deleted, evicted or failed → the broker holds the session → the next pod's agent gets it: a pause, no error
//	          session lost (both holders gone) → opened anew, Generation rises → the next Acquire of each target tells
//	Release   reference forgotten → last one: after the delay the client flushes, the session is closed, the pod deleted
//
// # Guarantees
//
//   - Acquire and Release are idempotent, and a process that dies between any two of their steps leaves nothing that the next one does not
//     resume or take back.
//   - A shared Acquire makes no API call, a cold one creates one pod. Nothing is listed but once at start.
//   - No secret is written to disk: only a hash of it, made with a random key of this node.
//
// # Who else may delete a Mount Pod
//
// A Mount Pod has its Node as controlling owner. The garbage collector then removes it with its Node; kubectl drain accepts it without
// --force, as it has a controller; Karpenter takes it for a static pod and neither waits for it nor evicts it. A DaemonSet as owner would not do: its
// controller releases pods whose labels it does not select, and deletes those that it does. The annotation
// cluster-autoscaler.kubernetes.io/daemonset-pod makes the cluster autoscaler treat it as part of the node, and the priority class
// system-node-critical keeps the descheduler away and puts it in the last phase of a graceful node shutdown, after the applications.
// kubectl drain evicts Mount Pods along with their users unless a PodDisruptionBudget with an integer minAvailable forbids it (a pod
// without a scalable controller can have no other kind of budget); the drain then waits until their last user has gone. If a Mount Pod
// is deleted in spite of all this, the next one takes the session over: its users see a pause.
package mountpod
