package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"
)

// Probe looks up a name that nobody has. No cache of the kernel can answer that, and the client can answer it only with its metadata engine, unlike
// statfs(2), which JuiceFS answers from memory. Names at random are not remembered by anybody. It may wait for ever, so it belongs into a process of its own.
func Probe(path string) error {
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
