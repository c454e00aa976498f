// Package filesystem serves a JuiceFS engine as a go-fuse RawFileSystem that outlives its process: another process that is
// given the session's memory goes on with the same nodes, handles, locks and unflushed writes. It does not mount, and it
// does not open engines by itself.
//
// # State, and where it survives kill -9
//
//   - Nodes: a node id is the inode number. Nothing to keep.
//   - File handles: a table in the session's memory holds number, inode and flags of every open file, so that the next process
//     opens them again before it serves. This also tells JuiceFS which files must outlive their last name.
//     Handle numbers never repeat within a session.
//   - Directory handles: a directory's stream is ordered by a hash of the names, and offsets are those hashes. Any process can
//     go on at any offset, also when names have come and gone.
//   - Locks: they belong to the metadata session, whose number is kept with Session.Put. Owners are the kernel's own numbers.
//   - Writes: JuiceFS answers a write when it lies in its buffer. Each write is in the session's write log until the inode
//     has been flushed; see mount/client.WriteLog.
//
// # Order of logged writes and other requests
//
// A replay writes old data over whatever is there, so no request that changes a file's bytes, length or mtime by another way
// may overtake logged writes: setattr of size or mtime, fallocate and copy_file_range flush the inode first and drop its
// records. Reads, renames, links, modes and owners do not matter to a replay. Unlink does not either: records of an inode
// that is gone are dropped. The write that was not answered when the process died is replayed and then sent again by the
// kernel, with the same effect. A record is dropped only after a flush that began when the write was already in JuiceFS's
// buffer. A flush that fails for good drops its records too once a request gets the error, which JuiceFS keeps for every later write,
// fsync and close of the inode. A flush that JuiceFS gave up waiting for drops nothing, since its uploads go on and that error is
// kept nowhere; a request that changes bytes or length, and so must come after the logged writes, fails with it.
//
// Other clients of the volume see the order that JuiceFS promises, close-to-open: a write that is neither flushed nor closed
// may reach them up to flushAge plus the pause of a restart later.
//
// # Limits
//
// Locks and unlinked open files end when no process serves for five heartbeats (a minute by default): then any other client of
// the volume may clean the session up. A file that is unlinked while open and whose last handle is closed after a restart
// keeps its space until the session ends. A directory is read as a whole when its stream starts, about 200 bytes per entry.
package filesystem
