// Package engine turns a mount.Volume into a running JuiceFS engine: metadata client, chunk store, object storage and vfs.
// It speaks no FUSE and knows nothing of sessions, sockets or processes.
//
// # Terms
//
//   - Spec: a volume's Secret and mount options, parsed and checked without asking anybody.
//   - Setting: what the metadata engine stores about the volume when it is formatted (meta.Format).
//   - Sid: the metadata session's number. Locks and files that are unlinked but open belong to it; an engine that is opened
//     with the sid of a dead one takes them over.
//
// # Formatting
//
// A volume is formatted at most once: when the metadata engine says that it holds none and the Secret names storage and
// bucket. A metadata engine that holds a volume is never changed, whatever the Secret says, and object storage is not
// touched before the metadata engine has been asked.
//
// # Errors
//
// Everything wraps mount.ErrConfig (somebody must change the Secret or the options) or mount.ErrUnavailable (retrying may
// help), or is an internal error. No error and no log line holds a secret.
package engine
