package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Usage is what a directory takes of its file system.
type Usage struct {
	// Bytes are allocated bytes, not file lengths.
	Bytes int64
	// Inodes counts files and directories, each hard-linked file once per link.
	Inodes int64
}

// Measure adds up what lies in dir. It neither follows symbolic links nor crosses mounts; what vanishes meanwhile is not
// counted, and neither is what lies deeper than a path can name.
func Measure(ctx context.Context, dir string) (Usage, error) {
	root, err := Root(dir)
	if err != nil {
		return Usage{}, err
	}
	defer root.Close()
	var u Usage
	err = u.add(ctx, root, ".", 0)
	return u, err
}

func (u *Usage) add(ctx context.Context, parent *os.File, name string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > 4*maxDepth {
		return nil
	}
	dir, err := open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := u.addEntry(ctx, dir, n, depth); err != nil {
				return err
			}
		}
	}
}

func (u *Usage) addEntry(ctx context.Context, dir *os.File, name string, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	u.Inodes++
	u.Bytes += st.Blocks * 512
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return u.add(ctx, dir, name, depth+1)
	}
	return nil
}
