package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the descriptors that a removal holds open. Deeper directories are first moved up, so that nobody can
// exhaust this process by the depth of a volume.
const maxDepth = 64

// Remove removes the directory and everything below it, without following symbolic links and without crossing a mount: a
// mount below, of whatever file system, is ErrMounted and what it covers stays. That there is nothing is no error.
func Remove(ctx context.Context, dir string) error {
	parent, err := Root(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	r := &remover{}
	if err := r.remove(ctx, parent, filepath.Base(dir), 0); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// remover is the state of one removal.
type remover struct {
	// top is the directory to remove; what is too deep in it is moved there.
	top   *os.File
	moved int
}

func (r *remover) remove(ctx context.Context, parent *os.File, name string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := unix.Unlinkat(int(parent.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", name, ErrMounted)
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "unlink", Path: name, Err: err}
	}
	if depth > maxDepth {
		return r.moveUp(parent, name)
	}
	for {
		if err := r.empty(ctx, parent, name, depth); err != nil {
			return err
		}
		err = unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.ENOTEMPTY):
			continue // something was moved up, or readdir skipped an entry while others went
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%s: %w", name, ErrMounted)
		}
		return &fs.PathError{Op: "rmdir", Path: name, Err: err}
	}
}

// empty removes what is in a directory.
func (r *remover) empty(ctx context.Context, parent *os.File, name string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%s: %w", name, ErrMounted)
	case err != nil:
		return err
	}
	defer dir.Close()
	if depth == 0 {
		r.top = dir
	}
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := r.remove(ctx, dir, n, depth+1); err != nil {
				return err
			}
		}
	}
}

// moveUp takes a directory that lies too deep to the top, where it is removed in its turn.
func (r *remover) moveUp(parent *os.File, name string) error {
	for {
		up := fmt.Sprintf("..removing-%d", r.moved)
		r.moved++
		err := unix.Renameat2(int(parent.Fd()), name, int(r.top.Fd()), up, unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EEXIST):
			continue
		case errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%s: %w", name, ErrMounted)
		}
		return &fs.PathError{Op: "rename", Path: name, Err: err}
	}
}
