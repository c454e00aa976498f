package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	versionTime = "..2006_01_02_15_04_05."
	dirMode     = 0o755
)

// Write makes the volume at root show exactly files, and reports whether it had to change anything. The visible content is
// either the old one or the new one as a whole, also after a crash, which the next Write cleans up after. Calls for one
// volume must not overlap.
func Write(root *os.Root, files Files, owner Owner) (changed bool, err error) {
	if err := files.Validate(); err != nil {
		return false, err
	}
	files = files.clean()
	current, err := readLink(root, dataLink)
	if err != nil {
		return false, err
	}
	if current == "" || !holds(root, current, files, owner) {
		if current, err = publish(root, files, owner); err != nil {
			return false, err
		}
		changed = true
	}
	if err := link(root, files); err != nil {
		return changed, err
	}
	return changed, sweep(root, files, current)
}

// publish writes a new version and makes it the visible one.
func publish(root *os.Root, files Files, owner Owner) (version string, err error) {
	version = fmt.Sprintf("%s%010d", time.Now().UTC().Format(versionTime), rand.Uint32())
	if err := root.Mkdir(version, 0o700); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = root.RemoveAll(version)
		}
	}()
	for p, file := range files {
		if err := writeFile(root, version, p, file, owner); err != nil {
			return "", err
		}
	}
	if err := setDirMode(root, version, owner); err != nil {
		return "", err
	}
	if err := root.Remove(newDataLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := root.Symlink(version, newDataLink); err != nil {
		return "", err
	}
	return version, root.Rename(newDataLink, dataLink)
}

func writeFile(root *os.Root, version, p string, file File, owner Owner) error {
	// Every directory on the way gets its mode, whatever the umask is.
	dir := version
	for segment := range strings.SplitSeq(path.Dir(p), "/") {
		if segment == "." {
			continue
		}
		dir = path.Join(dir, segment)
		if err := root.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := setDirMode(root, dir, owner); err != nil {
			return err
		}
	}
	name := path.Join(version, p)
	if err := root.WriteFile(name, file.Data, 0o600); err != nil {
		return err
	}
	if err := root.Lchown(name, int(orRoot(file.UID)), int(orRoot(owner.GID))); err != nil {
		return err
	}
	return root.Chmod(name, fileMode(file, owner))
}

func setDirMode(root *os.Root, dir string, owner Owner) error {
	if err := root.Lchown(dir, 0, int(orRoot(owner.GID))); err != nil {
		return err
	}
	return root.Chmod(dir, directoryMode(owner))
}

func fileMode(file File, owner Owner) fs.FileMode {
	mode := file.Mode.Perm()
	if owner.GID != nil {
		mode |= 0o440
	}
	return mode
}

func directoryMode(owner Owner) fs.FileMode {
	if owner.GID != nil {
		return dirMode | fs.ModeSetgid
	}
	return dirMode
}

// link makes every first path segment a symbolic link into the visible version.
func link(root *os.Root, files Files) error {
	for name := range heads(files) {
		target := path.Join(dataLink, name)
		if old, err := root.Readlink(name); err == nil && old == target {
			continue
		}
		// What lies there is not ours: an empty directory that was made to mount something on can go, content cannot.
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := root.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes links to names that the volume no longer has, and versions that are no longer visible.
func sweep(root *os.Root, files Files, current string) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	wanted := heads(files)
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == newDataLink, strings.HasPrefix(name, "..2") && name != current:
			err = root.RemoveAll(name)
		case strings.HasPrefix(name, ".."), wanted[name], e.Type() != fs.ModeSymlink:
			continue
		default:
			if target, readErr := root.Readlink(name); readErr == nil && target == path.Join(dataLink, name) {
				err = root.Remove(name)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// heads returns the first path segments.
func heads(files Files) map[string]bool {
	names := map[string]bool{}
	for p := range files {
		head, _, _ := strings.Cut(p, "/")
		names[head] = true
	}
	return names
}

// holds tells whether the version on disk is what Write would write. Whatever cannot be read is not.
func holds(root *os.Root, version string, files Files, owner Owner) bool {
	found := 0
	err := fs.WalkDir(root.FS(), version, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		file, ok := files[strings.TrimPrefix(name, version+"/")]
		if !ok || !equal(root, name, file, owner) {
			return fs.ErrNotExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

func equal(root *os.Root, name string, file File, owner Owner) bool {
	info, err := root.Lstat(name)
	if err != nil || info.Mode() != fileMode(file, owner) {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int64(stat.Uid) != orRoot(file.UID) || int64(stat.Gid) != orRoot(owner.GID) {
		return false
	}
	data, err := root.ReadFile(name)
	return err == nil && bytes.Equal(data, file.Data)
}

// readLink returns "" if there is no link.
func readLink(root *os.Root, name string) (string, error) {
	target, err := root.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return target, err
}
