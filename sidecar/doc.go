// Package sidecar turns the volumes of a pod into sidecars: it resolves claims into volumes and puts one FUSE client per
// volume into a copy of the pod. It neither mounts nor starts anything, and it never writes to the API server.
//
// # Terms
//
//   - Resolve: Pod → PersistentVolumeClaim → PersistentVolume → Secret → Mount. It reads single objects only, as the Node
//     authorizer allows it to a node.
//   - Mount: a volume of one pod with everything that its sidecar needs: image, command, resources, directories.
//   - Inject: Pod and Mounts → Pod. It is pure; the virtual node calls it on its own copy after scheduling, the webhook at
//     admission.
//   - Warning: a setting that is accepted and not followed, in words for an Event. A setting that would make the volume
//     something else than what it says is an Error instead.
//
// # What a sidecar may do
//
// A sidecar runs as an ordinary user without any capability, with no_new_privs, the runtime's seccomp profile and a
// read-only root file system. The secrets of its volume are not in the pod: they reach the client over the session's
// socket only.
//
// # The scheduler's view
//
// The virtual node injects after scheduling, so the scheduler has not counted the sidecar's requests. The node must keep
// room for them, or the pod must ask for them (a pod overhead or higher requests). The webhook injects before scheduling
// and is counted.
package sidecar
