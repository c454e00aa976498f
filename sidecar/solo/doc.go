// Package solo holds the sessions of one pod from inside that pod, on a node that has nothing of ours: it is the broker of the
// pod's privileged container, asks for the pod's volumes, opens their sessions and ends them. The clients run in containers of
// their own, without privilege; solo starts none.
//
// # Guarantees
//
//   - A client's container may die as a whole, killed for its memory for instance: this process has the session's files, and the
//     next client gets them.
//   - This process may die: the agents have the files, and the next one finds its sessions again.
//   - A volume that cannot be had, or that its client cannot serve, is asked for again until it can.
//   - Whoever asks whether the pod is ready is answered without a look at any file system.
//
// # Non-goals
//
// When both holders are gone at once the session is opened anew; containers that run see the new one only when they start again.
package solo
