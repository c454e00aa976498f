package volumes

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// node is what a name leads to.
type node struct {
	ino       meta.Ino
	directory bool
}

// lookup finds a name; ok is false if it is not there. Links are not followed.
func (s *Service) lookup(ctx meta.Context, parent meta.Ino, name string) (n node, ok bool, err error) {
	var attr meta.Attr
	switch st := s.m.Lookup(ctx, parent, name, &n.ino, &attr, false); st {
	case 0:
		n.directory = attr.Typ == meta.TypeDirectory
		return n, true, nil
	case syscall.ENOENT:
		return node{}, false, nil
	default:
		return node{}, false, failed(ctx, "look up "+name, st)
	}
}

// directory finds or makes a directory of user 0.
func (s *Service) directory(ctx meta.Context, parent meta.Ino, name string, mode uint16) (meta.Ino, error) {
	n, ok, err := s.lookup(ctx, parent, name)
	if err != nil {
		return 0, err
	}
	if !ok {
		var attr meta.Attr
		switch st := s.m.Mkdir(ctx, parent, name, mode, 0, 0, &n.ino, &attr); st {
		case 0:
			return n.ino, nil
		case syscall.EEXIST:
			if n, ok, err = s.lookup(ctx, parent, name); err != nil {
				return 0, err
			}
			if !ok {
				return 0, fmt.Errorf("%w: %s comes and goes", admin.ErrBusy, name)
			}
		default:
			return 0, failed(ctx, "make directory "+name, st)
		}
	}
	if !n.directory {
		return 0, fmt.Errorf("%w: %q is there and is not a directory", admin.ErrInvalid, name)
	}
	return n.ino, nil
}

// reservedNames are JuiceFS's own at the root of a mount or of the file system.
var reservedNames = map[string]bool{
	meta.TrashName: true, ".accesslog": true, ".stats": true, ".config": true, ".control": true,
}

// cleanPath is admin.CleanPath with JuiceFS's rules.
func cleanPath(path string) (string, error) {
	clean, err := admin.CleanPath(path)
	if err != nil {
		return "", err
	}
	if first, _, _ := strings.Cut(clean, "/"); reservedNames[first] {
		return "", fmt.Errorf("%w: path %q: %s is JuiceFS's own", admin.ErrInvalid, path, first)
	}
	return clean, nil
}

// place is where a volume's path leads.
type place struct {
	parent meta.Ino // the directory that the last part is a name in; 0 if it is not there
	name   string
	node   node
	found  bool
}

// walk follows a clean path by its directories, never through a link, and refuses to enter a volume other than the path's own. make makes
// the directories above the last part.
func (s *Service) walk(ctx meta.Context, l layout, path string, make bool) (place, error) {
	parts := strings.Split(path, "/")
	at := l.root
	for i, part := range parts[:len(parts)-1] {
		var next meta.Ino
		var err error
		if make {
			next, err = s.directory(ctx, at, part, 0o755)
		} else {
			n, ok, lookErr := s.lookup(ctx, at, part)
			switch {
			case lookErr != nil:
				err = lookErr
			case !ok:
				return place{name: parts[len(parts)-1]}, nil
			case !n.directory:
				err = fmt.Errorf("%w: %q is there and is not a directory", admin.ErrInvalid, part)
			}
			next = n.ino
		}
		if err != nil {
			return place{}, fmt.Errorf("path %q: %w", path, err)
		}
		outer := strings.Join(parts[:i+1], "/")
		inside, err := s.members(ctx, l, next, outer)
		if err != nil {
			return place{}, err
		}
		if len(inside) > 0 {
			return place{}, fmt.Errorf("%w: path %q lies within volume %s at %q", admin.ErrInvalid, path, inside[0].ID, outer)
		}
		at = next
	}
	p := place{parent: at, name: parts[len(parts)-1]}
	var err error
	p.node, p.found, err = s.lookup(ctx, at, p.name)
	return p, err
}

// names lists a directory.
func (s *Service) names(ctx meta.Context, dir meta.Ino) ([]string, error) {
	var entries []*meta.Entry
	if st := s.m.Readdir(ctx, dir, 0, &entries); st != 0 {
		return nil, failed(ctx, "list directory", st)
	}
	var names []string
	for _, e := range entries {
		if name := string(e.Name); name != "." && name != ".." {
			names = append(names, name)
		}
	}
	return names, nil
}
