// Package admin is the administrative command set of a client image: it makes, resizes, copies and removes volumes inside a
// file system. It holds the vocabulary, the rules for identifiers and paths, and the wire (HTTP and JSON over a unix socket);
// how a command is carried out is the client's worker's business, and who may ask for what is the CSI controller's.
//
// # Terms
//
//   - FileSystem: what a StorageClass names with its Secret. Many volumes share one.
//   - Volume: a directory of a file system that has been given to somebody, with a size that is kept as a quota.
//   - Record: what the file system itself remembers about a volume or snapshot, below the directory Reserved. Whoever has the
//     file system and its Secret has everything; the worker and its callers keep no state.
//   - Worker: the program that serves the commands, beside the CSI controller in one pod: `sidemount-juicefs worker`.
//
// # Contract of a Service
//
// Every command may be repeated at any time, also while an earlier one of the same kind still runs, after any crash, and by
// several workers at once; it ends in the same state and gives the same answer. A command whose result is not there yet
// answers ErrBusy (or a snapshot that is not Ready) and goes on by itself; the caller asks again. Every command ends within
// its context's deadline, or MaxDuration without one.
//
// No error holds a secret.
package admin
