package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// onPath does something with a mount that may hang, so it has a process of its own. The exit code is the number of the error.
func onPath(args []string, do func(path string) error) int {
	if len(args) != 1 {
		return usage()
	}
	err := do(args[0])
	var errno unix.Errno
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &errno) && errno != 0:
		return int(errno)
	}
	return exitFailed
}

// printUsage prints JSON, in bytes and in inodes.
func printUsage(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	size := uint64(st.Frsize)
	fmt.Printf(`{"bytes":{"total":%d,"available":%d,"used":%d},"inodes":{"total":%d,"available":%d,"used":%d}}`+"\n",
		st.Blocks*size, st.Bavail*size, (st.Blocks-st.Bfree)*size, st.Files, st.Ffree, st.Files-st.Ffree)
	return nil
}
