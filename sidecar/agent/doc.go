// Package agent is pid 1 of a sidecar or Mount Pod: it gets a session from the broker, runs the client that serves it, starts the next one when that dies,
// and ends it in order. It needs no privilege, knows nothing of Kubernetes, and never touches the file system that it keeps alive.
//
// # Guarantees
//
//   - The session's files stay open here for as long as the agent lives, so the death of any client, and of the broker, is survived.
//   - At most one client has the connection at any time; the kernel is asked for the requests of a dead one only after wait(2) has seen it end.
//   - When the broker comes back, it is given everything again.
//   - No client outlives its agent (PR_SET_PDEATHSIG).
package agent
