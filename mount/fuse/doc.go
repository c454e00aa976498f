// Package fuse is the kernel boundary of FUSE: the device, the mount, the INIT handshake, the control file system and the
// mount table. It serves no file system and knows nothing of sessions; go-fuse does the one, package broker the other.
//
// Every function that opens something returns an *os.File that its caller closes; all are close-on-exec.
//
// What not to add here: anything that touches a path inside a FUSE mount. Such a call waits for the client and may never
// return; a child process with a deadline has to do it.
package fuse
