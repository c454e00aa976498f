package passthrough

import (
	"crypto/rand"
	"errors"
	"log"
	"math"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// hiddenName is the directory in the root that is not shown. It has one directory per session.
const hiddenName = ".sidemount-unlinked"

// stale is the age after which the leftovers of another session count as abandoned.
const stale = 24 * time.Hour

// hidden gives files that are removed while open a path that the next client can open.
type hidden struct {
	fs   *FS
	name string // this session's directory

	mu   sync.Mutex // guards what follows
	dir  *os.File   // nil until the first file needs it; then open as long as the process
	node uint64
}

func (h *hidden) init(fs *FS) {
	const key = "passthrough/hidden"
	h.fs = fs
	if b, ok := fs.keep.Get(key); ok {
		h.name = string(b)
		if err := h.open(); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Printf("open the directory of removed files: %v", err)
		}
		return
	}
	h.name = rand.Text()
	if err := fs.keep.Put(key, []byte(h.name)); err != nil {
		log.Printf("keep the name of the directory of removed files: %v", err)
	}
	h.sweep()
}

// hides tells whether a name is not to be shown.
func (h *hidden) hides(parent uint64, name string) bool {
	return parent == rootID && name == hiddenName
}

// place returns this session's directory and its node, nil and 0 while there is none.
func (h *hidden) place() (*os.File, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dir, h.node
}

// open opens this session's directory if it exists, and makes its place known.
func (h *hidden) open() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.openLocked()
}

func (h *hidden) openLocked() error {
	path := hiddenName + "/" + h.name
	fd, err := unix.Openat2(h.fs.root, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	var outer, inner unix.Stat_t
	if err := errors.Join(unix.Fstatat(h.fs.root, hiddenName, &outer, unix.AT_SYMLINK_NOFOLLOW), unix.Fstat(fd, &inner)); err != nil {
		unix.Close(fd)
		return err
	}
	// Both are known like any other directory, so that a path through them can be built. The kernel never forgets what it was not given.
	if err := errors.Join(h.fs.table.know(outer.Ino, rootID, hiddenName), h.fs.table.know(inner.Ino, outer.Ino, h.name)); err != nil {
		unix.Close(fd)
		return err
	}
	h.dir, h.node = os.NewFile(uintptr(fd), path), inner.Ino
	h.fs.table.hide(inner.Ino)
	return nil
}

// create returns this session's directory, and makes it before its first use.
func (h *hidden) create() (*os.File, uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dir != nil {
		return h.dir, h.node, nil
	}
	// Every client of the directory has a directory of its own in the outer one, and cannot touch the others'.
	if err := h.mkdir(hiddenName, 0o1777); err != nil {
		return nil, 0, err
	}
	if err := h.mkdir(hiddenName+"/"+h.name, 0o700); err != nil {
		return nil, 0, err
	}
	err := h.openLocked()
	return h.dir, h.node, err
}

func (h *hidden) mkdir(path string, mode uint32) error {
	if err := unix.Mkdirat(h.fs.root, path, mode); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// save gives the file at a name a second name here, before that name goes, if the kernel knows the file by no other. Also if nobody has it open: somebody may be about to open
// what he has just looked up, and must then still have it after this client. The name is that of its node, so doing it twice is harmless.
func (h *hidden) save(dir int, parent uint64, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil // the call that follows says what is wrong
	}
	node := h.fs.nodeID(st.Ino)
	at, as, ok := h.fs.table.at(node)
	if !ok || h.fs.table.isSaved(node) {
		return nil
	}
	if other := at != parent || as != name; other && st.Nlink > 1 && h.fs.isAt(node, at, as) {
		return nil
	}
	err := h.link(dir, name, node)
	if err != nil && !h.fs.table.isOpen(node) {
		// Where no second name can be made, removing files has to work all the same. For as long as this client lives, it can be opened; see removed.
		return nil
	}
	return err
}

// hiddenAs is the hidden name of a node.
func hiddenAs(node uint64) string { return strconv.FormatUint(node, 10) }

func (h *hidden) link(dir int, name string, node uint64) error {
	place, number, err := h.create()
	if err != nil {
		return err
	}
	to := hiddenAs(node)
	if err := unix.Linkat(dir, name, int(place.Fd()), to, 0); err != nil && err != unix.EEXIST {
		return err
	}
	return h.fs.table.move(node, number, to)
}

// forget removes a file that was kept only for those who had it open.
func (h *hidden) forget(parent uint64, name string) {
	place, node := h.place()
	if place == nil || parent != node {
		return
	}
	if err := unix.Unlinkat(int(place.Fd()), name, 0); err != nil && err != unix.ENOENT {
		log.Printf("remove a file that nobody has open: %v", err)
	}
}

// tidy removes this session's directory if nothing is in it. A next client would make it again.
func (h *hidden) tidy() {
	place, inner := h.place()
	if place == nil {
		return
	}
	outer, _, _ := h.fs.table.at(inner)
	// What is not empty stays: somebody has a file open, or another session has its directory there. What goes must not be in the table, as its number is free for something else.
	if unix.Unlinkat(h.fs.root, hiddenName+"/"+h.name, unix.AT_REMOVEDIR) == nil {
		h.fs.table.forget(inner, math.MaxUint64)
	}
	if unix.Unlinkat(h.fs.root, hiddenName, unix.AT_REMOVEDIR) == nil {
		h.fs.table.forget(outer, math.MaxUint64)
	}
}

// sweep removes what sessions have left that ended without their end.
func (h *hidden) sweep() {
	outer, err := unix.Openat2(h.fs.root, hiddenName, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return
	}
	place := os.NewFile(uintptr(outer), hiddenName)
	defer place.Close()
	root, err := os.OpenRoot(procPath(place))
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	entries, err := place.ReadDir(-1)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > stale {
			// Somebody else's may not be ours to remove.
			_ = root.RemoveAll(e.Name())
		}
	}
}
