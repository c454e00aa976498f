// Package passthrough is a client that serves a directory of the host, for trying things out and for tests of everything around a client. It is no
// general-purpose overlay: it serves one file system, without crossing into others, and everything it does is done with its own identity.
//
// # How it survives kill -9
//
// A node id is the inode's number (1 for the root), and a table in the session's memory knows a path of every node that the kernel knows. A node is opened
// by its path and compared with its number; an unprivileged process cannot open by file handle. An unknown file handle is opened again from the node id and the
// open flags that READ and WRITE carry. A directory stream continues at the offset that the kernel asks for.
//
// A file whose last known name goes while the kernel knows it would have no path any more, and somebody may have it open or be about to open it. It gets one in a hidden directory of
// the root, until the kernel forgets it; what a killed client was told to forget is found by asking the kernel. A rename is noted before it happens, so that the next client
// can tell which of the two names a file has. Directories that are removed while open are not kept.
//
// Where the kernel can (Linux 6.9), it reads and writes files by itself, so that an open file works while no client runs. See backings. How often a node is open may be counted too
// high after a crash, never too low; its backing file is then kept until the kernel forgets the node.
//
// Locks are kept by the kernel, so they hold between the processes of one mount, and survive.
//
// # Non-goals
//
// Several clients on one directory see each other's changes after a second at the latest, like any network file system; but a file that another client renames or
// removes while it is open here cannot be opened again after a crash: its user gets ESTALE. While the kernel reads and writes by itself, only names, sizes and the like go through this process. chown to somebody else fails with EPERM.
package passthrough
