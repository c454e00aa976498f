// Package webhook puts sidecars into pods at admission, for nodes that are not ours, and grants those pods their volumes when they
// run. It injects by the same code as the virtual node; it makes no volumes, writes no Secret and keeps no state.
//
// # Terms
//
//   - Injection: the pod gets a broker of its own and a native sidecar for each volume of ours (sidecar.Guest).
//   - Grant: the pod's broker shows a token that is bound to its pod; it gets the volumes that this pod, as the API server
//     has it, names, and no others.
//
// # Guarantees
//
//   - What is injected depends on the API's objects only and changes none: dry runs and repeated calls are safe.
//   - A pod that has nothing of ours is returned as it is, whatever state our own objects are in. Where injection is required it is
//     marked as reviewed, by which the cluster's policy knows it from one that the webhook has not seen.
//   - A claim may be unbound: its StorageClass tells what the sidecar looks like, and the claim stays in the pod's spec, so
//     that the scheduler binds it and nobody deletes it while the pod runs.
//
// # Non-goals
//
// Kubernetes before 1.29 has no native sidecars, and nothing else keeps the order that a volume needs: an ordinary container starts after
// the init containers, which then see an empty directory; it ends together with the application, which then loses what it has
// just written; and it keeps a Job from completing unless it guesses that the others have ended. New refuses such a cluster.
package webhook
