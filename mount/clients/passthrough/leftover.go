package passthrough

import (
	"math"
	"os"
	"strconv"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// leftoverAfter is for how long a file has been hidden at least before the kernel is asked about it. Whoever was given it by a lookup has taken it by then, or looks it up again.
const leftoverAfter = 5 * time.Second

// notifier asks the kernel to look at an inode again.
type notifier interface {
	InodeNotify(node uint64, offset, length int64) fuse.Status
}

// watchLeftovers asks about nodes after a while, and then about those that are hidden by then, as long as the process lives.
func (f *FS) watchLeftovers(kernel notifier, nodes []uint64) {
	time.AfterFunc(leftoverAfter, func() {
		f.removeLeftovers(kernel, nodes)
		f.watchLeftovers(kernel, f.table.saved())
	})
}

// removeOrphans removes hidden files that are not in the table: the client died while it removed them. Nothing else happens at the time.
func (h *hidden) removeOrphans() {
	place, number := h.place()
	if place == nil {
		return
	}
	entries, err := os.ReadDir(procPath(place))
	if err != nil {
		return
	}
	for _, e := range entries {
		if node, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && !h.fs.table.knows(node) {
			h.forget(number, e.Name())
		}
	}
}

// removeLeftovers removes hidden files that the kernel does not know any more. A FORGET has no answer and is not sent again, so one that a killed client has taken is lost, and
// a lookup that was executed twice is counted twice. The kernel says ENOENT when it is told about a node that it does not know; one that it knows loses nothing but cached attributes.
func (f *FS) removeLeftovers(kernel notifier, nodes []uint64) {
	const attributesOnly = -1
	for _, node := range nodes {
		if f.hasOnlyHiddenName(node) && kernel.InodeNotify(node, attributesOnly, 0) == fuse.ENOENT {
			f.Forget(node, math.MaxUint64)
		}
	}
}

// hasOnlyHiddenName tells that nobody can look a node up.
func (f *FS) hasOnlyHiddenName(node uint64) bool {
	if !f.table.isSaved(node) {
		return false
	}
	place, err := f.path(node)
	if err != nil {
		return false
	}
	defer place.Close()
	var st unix.Stat_t
	return unix.Fstat(int(place.Fd()), &st) == nil && st.Nlink == 1
}

// saved returns the nodes that are known by their hidden names.
func (t *table) saved() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var nodes []uint64
	for node, i := range t.index {
		if t.isHidden(i) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}
