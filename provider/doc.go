// Package provider is the pod engine of a virtual node: it makes the pods that are bound to the node run on a container runtime
// as a kubelet would, and tells the API server what became of them. It opens no volume, builds no container configuration and
// speaks no CRI itself; those are Runtime, Images, Volumes and Preparer, the interfaces that it consumes.
//
// # One actor per pod UID
//
// The Engine owns one goroutine, the actor, for every pod UID that the API server has bound to the node or that the runtime
// still has containers of. Only the actor reads and writes its pod's state. Everything else posts to its mailbox and returns at
// once: the watch on pods, runtime events, probe results, ended operations, Wake. A pass of the actor is always the same:
//
//	gather the runtime's state → computeActions (pure) → begin operations → computeStatus (pure) → publish
//
// Operations (pull, create, start, stop, hooks, volumes) run in goroutines of their own, at most one per container, and hand
// their result back to the actor. So a pod that pulls a large image can be deleted, and a crashing container does not hold up
// the others. The actor waits for all of them before it ends.
//
// # Stages of an actor
//
//	active → stopping → cleaning → finished → gone
//
// Active pods are kept as their specification says. Stopping begins with a deletion, a deadline, an eviction or because nothing
// would run again: application containers end first, in parallel, then native sidecars in reverse order, then the sandbox.
// Cleaning releases sessions and volumes. A finished pod keeps its dead containers, for their logs, until the API object goes.
//
// # What virtual-kubelet does and what it does not
//
// virtual-kubelet's PodController watches pods and calls Provider, whose methods post to the engine, never block and never fail.
// Its two ways of writing are not used, because each loses something that a node must keep:
//
//   - Status: it replaces the whole object, with foreign conditions and labels as it once knew them, and sends nothing once a
//     phase is final. The engine patches the fields that a kubelet owns, on condition of the UID.
//   - Deletion: it removes the API object when the grace period is over, whether or not the containers have ended, and at once
//     when no container has been reported running. The engine removes the object after containers, volumes and the final
//     status are done.
//
// PodClient wraps the client given to PodController accordingly: its Delete asks the engine to end the pod and answers Conflict,
// which PodController takes for "not now"; its UpdateStatus becomes a patch. The engine also listens to the pod informer
// itself, because PodController drops deletions that come as tombstones and does not tell pods of one name apart by UID.
//
// # What survives a restart of this process
//
// Everything that runs. Stopping the engine ends no pod; a new one finds containers by the labels that the runtime keeps,
// and the restart count, the last termination and readiness by the status in the API server.
package provider
