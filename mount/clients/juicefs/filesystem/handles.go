package filesystem

import (
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/juicedata/juicefs/pkg/vfs"
)

type errno = syscall.Errno

// handle is an open file as the kernel knows it. The number under which vfs knows it differs, because vfs starts counting anew in
// every process.
type handle struct {
	number uint64
	inode  Ino
	flags  uint32
	vfs    uint64
	slot   int
	// owners may hold POSIX locks that were set through this handle and that no flush has released. Such a lock belongs to the
	// open file (an OFD lock) and ends with it. handles.mu guards it.
	owners map[uint64]struct{}
}

func (h *handle) writable() bool { return h.flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// handles are the open files of this mount.
type handles struct {
	table *table

	mu      sync.RWMutex // guards the maps
	byFh    map[uint64]*handle
	byInode map[Ino]map[*handle]struct{}
}

func newHandles(t *table) *handles {
	return &handles{table: t, byFh: make(map[uint64]*handle), byInode: make(map[Ino]map[*handle]struct{})}
}

// add gives a file that vfs has opened its number for the kernel.
func (s *handles) add(inode Ino, flags uint32, vfsHandle uint64) *handle {
	number, index := s.table.add(inode, flags)
	h := &handle{number: number, inode: inode, flags: flags, vfs: vfsHandle, slot: index}
	s.mu.Lock()
	s.insert(h)
	s.mu.Unlock()
	return h
}

// adopt takes a handle of an earlier process over. If another request was faster, the handle that counts is returned.
func (s *handles) adopt(h *handle) (winner *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.byFh[h.number]; there != nil {
		return there
	}
	s.insert(h)
	return h
}

func (s *handles) insert(h *handle) {
	s.byFh[h.number] = h
	if s.byInode[h.inode] == nil {
		s.byInode[h.inode] = make(map[*handle]struct{})
	}
	s.byInode[h.inode][h] = struct{}{}
}

func (s *handles) get(number uint64) *handle {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byFh[number]
}

// remove forgets a handle and tells whether it was the inode's last.
func (s *handles) remove(h *handle) (last bool) {
	s.mu.Lock()
	delete(s.byFh, h.number)
	delete(s.byInode[h.inode], h)
	if last = len(s.byInode[h.inode]) == 0; last {
		delete(s.byInode, h.inode)
	}
	s.mu.Unlock()
	s.table.remove(h.slot)
	return last
}

// locked notes that an owner has set a POSIX lock through the handle.
func (s *handles) locked(h *handle, owner uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.owners == nil {
		h.owners = make(map[uint64]struct{})
	}
	h.owners[owner] = struct{}{}
	s.table.setLockOwner(h.slot, owner)
}

// flushed notes that an owner has closed a descriptor of the handle, which released his locks.
func (s *handles) flushed(h *handle, owner uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := h.owners[owner]; !ok {
		return
	}
	delete(h.owners, owner)
	rest := uint64(0)
	for rest = range h.owners {
		break
	}
	s.table.setLockOwner(h.slot, rest)
}

// lockOwners are those whose locks end with the handle.
func (s *handles) lockOwners(h *handle) []uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(h.owners))
}

// writer is any handle by which the inode can be flushed.
func (s *handles) writer(inode Ino) *handle {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for h := range s.byInode[inode] {
		if h.writable() {
			return h
		}
	}
	return nil
}

// count is the number of open files, pseudo files left out.
func (s *handles) count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for inode := range s.byInode {
		if !vfs.IsSpecialNode(inode) {
			n++
		}
	}
	return n
}

// reopenFlags are what of an open's flags still holds when the file is opened again.
func reopenFlags(flags uint32) uint32 {
	return flags &^ uint32(syscall.O_CREAT|syscall.O_EXCL|syscall.O_TRUNC)
}

// find returns the handle of a request. One that is unknown is an earlier process's: it is opened again by the flags that the
// request carries.
func (fs *FileSystem) find(number uint64, inode Ino, flags uint32) (*handle, errno) {
	if h := fs.handles.get(number); h != nil {
		return h, 0
	}
	return fs.reopen(&handle{number: number, inode: inode, flags: reopenFlags(flags), slot: noSlot})
}

// reopen opens a handle of an earlier process.
func (fs *FileSystem) reopen(h *handle) (*handle, errno) {
	ctx := own(true)
	_, fh, err := fs.vfs.Open(ctx, h.inode, h.flags)
	if err != 0 {
		return nil, err
	}
	h.vfs = fh
	winner := fs.handles.adopt(h)
	if winner != h {
		fs.vfs.Release(ctx, h.inode, fh)
	}
	return winner, 0
}
