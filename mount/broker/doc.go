// Package broker holds the sessions of a node: it makes their mounts, answers INIT, hands their files to agents over unix sockets, watches over them and ends
// them. It is the only privileged code of the data path, and it neither resolves volumes nor starts containers.
//
// # The life of a session
//
//	Open     intent recorded → mount made, INIT answered → socket bound → Mounted
//	agent    hello → everything handed over → its client serves → a real request answered → Attached, ready
//	trouble  client or agent dies → Orphaned, requests wait → the next one serves → Attached
//	Close    client flushes and ends → connection aborted → unmounted → Closed
//
// # Guarantees
//
//   - A session has two holders, this broker and its agent; either may die at any moment. A broker that starts again finds the sessions in its journal
//     and their files with the agents.
//   - Nothing that waits for a client runs in this process: mounts are probed by a child that can be killed, and unmounting follows an abort.
//   - A session that cannot be kept is aborted and reported (SessionLost), never left hanging.
//
// # Non-goals
//
// The journal is not synced to disk: after a reboot no mount is left that it could be about. It holds no secret.
package broker
