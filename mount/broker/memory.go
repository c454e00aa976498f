package broker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// seals keep a session's memory at its size, so that no holder can end another one with SIGBUS.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// newMemory makes the memory of a session. The broker never looks into it; its pages count for the container that writes them.
func newMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate("sidemount-session", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("sidemount-session", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make the session's memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	if err := f.Truncate(mount.MemorySize); err != nil {
		f.Close()
		return nil, fmt.Errorf("size the session's memory: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal the session's memory: %w", err)
	}
	return f, nil
}

// isMemory tells whether a file that an agent has deposited can be a session's memory.
func isMemory(f *os.File) bool {
	// Only memory has seals: whatever passes is no file of a tenant's own file system, which must not be asked for a size.
	got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || got&seals != seals {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Size() == mount.MemorySize
}
