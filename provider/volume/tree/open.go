package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// attempts bounds the retries of openat2, which gives up with EAGAIN when a directory is renamed under it.
const attempts = 128

// Root opens a directory as the starting point for the other functions. It gives no right to read it.
func Root(dir string) (*os.File, error) {
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Open opens a path below root with the open flags (O_CLOEXEC is added). Symbolic links are followed as long as they stay
// below root; one that leaves it is ErrEscape. The caller closes the file.
func Open(root *os.File, name string, flags int) (*os.File, error) {
	return open(root, name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
}

// MakeDirs makes the directory name below root and those on the way to it, each with exactly the given permissions. What
// exists stays as it is. A set-group-ID parent hands that bit and its group down.
func MakeDirs(root *os.File, name string, mode fs.FileMode) error {
	if path.IsAbs(name) {
		return fmt.Errorf("make directory %s: %w", name, ErrEscape)
	}
	done := "."
	for segment := range strings.SplitSeq(path.Clean(name), "/") {
		next := path.Join(done, segment)
		if err := makeDir(root, done, segment, mode); err != nil {
			return fmt.Errorf("make directory %s: %w", next, err)
		}
		done = next
	}
	return nil
}

func makeDir(root *os.File, parent, name string, mode fs.FileMode) error {
	dir, err := Open(root, parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Mkdirat(int(dir.Fd()), name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return err
	}
	// Nobody can put something else in its place that chmod would follow out of the volume: the new one is opened by the
	// same rules first.
	made, err := open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer made.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(made.Fd()), &st); err != nil {
		return err
	}
	return unix.Fchmod(int(made.Fd()), uint32(mode.Perm())|st.Mode&unix.S_ISGID)
}

func open(root *os.File, name string, flags int, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve}
	fd, err := 0, error(unix.EAGAIN)
	for range attempts {
		fd, err = ignoringEINTR(func() (int, error) { return unix.Openat2(int(root.Fd()), name, &how) })
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if errors.Is(err, unix.EXDEV) && resolve&unix.RESOLVE_NO_XDEV == 0 {
		err = ErrEscape
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), path.Join(root.Name(), name)), nil
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
