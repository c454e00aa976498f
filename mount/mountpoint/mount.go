package mountpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tmpfs describes a memory file system.
type Tmpfs struct {
	// Size in bytes; 0 means the kernel's default, half of the memory.
	Size int64
	// Mode of its root directory.
	Mode fs.FileMode
	// GID of its root directory.
	GID int64
	// Attributes are MOUNT_ATTR_ flags.
	Attributes int
}

// Mount mounts it on target, a directory in which nothing is mounted yet. Its pages are never swapped where the kernel can
// do that (Linux 6.4).
func (t Tmpfs) Mount(target string) error {
	err := t.mount(target, true)
	if errors.Is(err, unix.EINVAL) {
		err = t.mount(target, false)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", target, err)
	}
	return nil
}

func (t Tmpfs) mount(target string, noswap bool) error {
	config, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer closeFD(config)
	options := [][2]string{
		{"mode", strconv.FormatUint(uint64(unixMode(t.Mode)), 8)},
		{"gid", strconv.FormatInt(t.GID, 10)},
		{"source", "tmpfs"},
	}
	if t.Size > 0 {
		options = append(options, [2]string{"size", strconv.FormatInt(t.Size, 10)})
	}
	for _, o := range options {
		if err := unix.FsconfigSetString(config, o[0], o[1]); err != nil {
			return fmt.Errorf("option %s=%s: %w", o[0], o[1], err)
		}
	}
	if noswap {
		if err := unix.FsconfigSetFlag(config, "noswap"); err != nil {
			return fmt.Errorf("option noswap: %w", err)
		}
	}
	if err := unix.FsconfigCreate(config); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	mount, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, t.Attributes)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer closeFD(mount)
	return move(mount, target)
}

// Bind mounts the file or directory that source has open (O_PATH will do) on target, without the mounts below it.
func Bind(source *os.File, target string) error {
	tree, err := clone(source)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	if err := move(tree, target); err != nil {
		return fmt.Errorf("bind on %s: %w", target, err)
	}
	return nil
}

// BindAt is Bind for a target that is open too, so that no name can lead elsewhere. The mount is read-only from its first
// moment if that is asked for.
func BindAt(source, target *os.File, readOnly bool) error {
	tree, err := clone(source)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	if readOnly {
		attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attributes); err != nil {
			return fmt.Errorf("make the bind of %s read-only: %w", source.Name(), err)
		}
	}
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(tree, "", int(target.Fd()), "", flags); err != nil {
		return fmt.Errorf("bind on %s: move mount: %w", target.Name(), err)
	}
	return nil
}

// clone makes a detached mount of what source has open. The caller closes it.
func clone(source *os.File) (int, error) {
	tree, err := unix.OpenTree(int(source.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("open tree %s: %w", source.Name(), err)
	}
	return tree, nil
}

// Detach ends the uppermost mount on target; processes that use it keep it until they close it. That nothing is mounted
// there is no error. It does not wait for the file system and does not follow a symbolic link.
func Detach(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &fs.PathError{Op: "unmount", Path: target, Err: err}
}

// On tells whether something is mounted on path, which is not followed if it is a symbolic link. It asks no file system.
func On(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

func move(mount int, target string) error {
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move mount: %w", err)
	}
	return nil
}

// closeFD closes a descriptor of the mount API, on which nothing is written that could be lost.
func closeFD(fd int) { _ = unix.Close(fd) }

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	if m&fs.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	return mode
}
