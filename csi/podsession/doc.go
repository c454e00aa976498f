// Package podsession keeps sessions that belong to one pod of an ordinary node and are served by a sidecar in it. It decides for no pod
// whether it may have one, binds nothing and speaks no CSI.
//
// # Guarantees
//
//   - A session's ID follows from the pod's UID and the volume, so that nothing has to be remembered: what the broker finds again after a restart of
//     this process is whole.
//   - Open does not wait for a client, which cannot start before the pod's volumes are published.
//   - Close is idempotent, knows the sessions of earlier processes, and takes no longer than the grace period.
package podsession
