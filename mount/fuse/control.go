package fuse

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Control is the FUSE control file system, held as a detached mount of its own, so that it need not be mounted anywhere.
type Control struct{ root *os.File }

// OpenControl opens the control file system. It needs CAP_SYS_ADMIN.
func OpenControl() (*Control, error) {
	fs, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen fusectl: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("create fusectl: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount fusectl: %w", err)
	}
	return &Control{os.NewFile(uintptr(fd), "fusectl")}, nil
}

// Close gives the control file system back. Connections are not touched.
func (c *Control) Close() { c.root.Close() }

// Abort ends a connection: everything that waits for it gets ECONNABORTED, everything later ENOTCONN. A connection that is gone is success.
func (c *Control) Abort(device uint32) error {
	f, err := c.open(device, "abort", unix.O_WRONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte("1")); err != nil {
		return fmt.Errorf("abort connection %d: %w", device, err)
	}
	return nil
}

// Has tells whether the file system with these device numbers is one of FUSE, of whatever mount namespace. It asks no such file system.
func (c *Control) Has(major, minor uint32) bool {
	if major != 0 { // FUSE's are anonymous; fuseblk's belong to a block device, which no tenant has
		return false
	}
	var st unix.Stat_t
	return unix.Fstatat(int(c.root.Fd()), strconv.FormatUint(uint64(minor), 10), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Waiting is the number of requests that have not been answered.
func (c *Control) Waiting(device uint32) (int, error) {
	f, err := c.open(device, "waiting", unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 32)
	n, err := f.Read(b)
	if err != nil {
		return 0, fmt.Errorf("read the requests of connection %d: %w", device, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b[:n])))
}

func (c *Control) open(device uint32, name string, flags int) (*os.File, error) {
	path := strconv.FormatUint(uint64(device), 10) + "/" + name
	fd, err := unix.Openat(int(c.root.Fd()), path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "fusectl/" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), "fusectl/"+path), nil
}
