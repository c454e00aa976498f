// Package mount is the vocabulary of Sidemount's data path: what a volume is, what a session is, and which errors the two can meet.
// It holds no logic; the packages below it open devices, speak protocols and run processes.
//
// # Terms
//
//   - Volume: what a PersistentVolume of our driver describes, resolved with its Secret: which client, which file system,
//     which options.
//   - Client: the program that serves a FUSE file system. "juicefs" serves a JuiceFS volume, "passthrough" a directory of
//     the host.
//   - Session: one live FUSE connection: its /dev/fuse file, the kernel's INIT request, the INIT answer, the mount.
//   - Broker: the only privileged code. It opens /dev/fuse, makes the mount and answers for the session's life.
//   - Agent: pid 1 of a sidecar or Mount Pod. It gets the session from the broker, starts the client and restarts it.
//
// # Guarantee
//
// Every live session has two holders, broker and agent. Either may die at any moment and nothing is lost.
package mount
