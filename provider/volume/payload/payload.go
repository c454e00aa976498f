package payload

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// ErrPath means that a file's path is not one that a volume may have.
var ErrPath = errors.New("invalid path")

const (
	maxPath    = 4096
	maxSegment = 255
)

// File is one file of a volume.
type File struct {
	Data []byte
	// Mode holds the permission bits.
	Mode fs.FileMode
	// UID is the owner; nil means root.
	UID *int64
}

// Files maps slash-separated paths below the volume to files.
type Files map[string]File

// Owner is whom a volume's files are made readable for.
type Owner struct {
	// GID is the group of all files and directories, which it may read; nil means that modes are as given and the group is root's.
	GID *int64
}

// Validate returns an ErrPath error for the first path that leaves the volume, is hidden by the volume's own names ("..data")
// or cannot exist.
func (f Files) Validate() error {
	for _, p := range slices.Sorted(maps.Keys(f)) {
		if err := validate(p); err != nil {
			return err
		}
	}
	return nil
}

func validate(p string) error {
	switch {
	case p == "", len(p) > maxPath, path.IsAbs(p), strings.HasPrefix(p, ".."), strings.IndexByte(p, 0) >= 0:
		return fmt.Errorf("%q: %w", p, ErrPath)
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == ".." || len(segment) > maxSegment {
			return fmt.Errorf("%q: %w", p, ErrPath)
		}
	}
	if path.Clean(p) == "." {
		return fmt.Errorf("%q: %w", p, ErrPath)
	}
	return nil
}

// Digest identifies the content with its modes and owners, so that callers can tell without the disk whether it has changed.
func (f Files) Digest(o Owner) [sha256.Size]byte {
	h := sha256.New()
	number := func(n int64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	text := func(b []byte) {
		number(int64(len(b)))
		h.Write(b)
	}
	number(orRoot(o.GID))
	for _, p := range slices.Sorted(maps.Keys(f)) {
		text([]byte(p))
		text(f[p].Data)
		number(int64(f[p].Mode))
		number(orRoot(f[p].UID))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// clean returns the files under their canonical paths.
func (f Files) clean() Files {
	c := make(Files, len(f))
	for p, file := range f {
		c[path.Clean(p)] = file
	}
	return c
}

func orRoot(id *int64) int64 {
	if id == nil {
		return 0
	}
	return *id
}
