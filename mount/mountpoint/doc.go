// Package mountpoint makes, finds and ends the mounts that volumes need: memory file systems and binds of one file or
// directory. Targets are named by descriptors wherever a name could be swapped; FUSE sessions are mounted elsewhere.
//
// It uses the mount API of Linux 5.2 (fsopen, open_tree, move_mount), so that a mount is complete before it appears.
package mountpoint
