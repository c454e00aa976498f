package main

import (
	"crypto/rand"
	"encoding/hex"
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

// probe looks up a name that nobody has. No cache of the kernel can answer that, and the client can answer it only with its metadata engine, unlike
// statfs(2), which JuiceFS answers from memory. Names at random are not remembered by anybody.
func probe(path string) error {
	// Opening it asks no file system, and tells a directory that is missing from a name that is.
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	var st unix.Stat_t
	err = unix.Fstatat(dir, ".sidemount-probe-"+hex.EncodeToString(b[:]), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
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
