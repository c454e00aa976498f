package filesystem

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// slot is one open file in the session's memory. The handle number is written last and cleared first, so a slot counts
// either wholly or not at all.
type slot struct {
	handle    uint64 // 0: free
	inode     uint64
	lockOwner uint64 // of a POSIX lock that goes with the open file (an OFD lock); 0: none
	flags     uint32
	_         uint32
}

const (
	slotSize   = int(unsafe.Sizeof(slot{}))
	tableMagic = uint64(0x53_4d_48_54_41_42_30_31) // "SMHTAB01"
)

// tableHeader takes the first slots of the memory.
type tableHeader struct {
	magic uint64
	next  uint64 // next handle number; numbers never repeat within a session
	_     [2]uint64
}

// table is the handle table in the session's memory. Files that are open beyond its size are served but not kept: after a
// kill -9 they are opened again from the flags in their requests.
type table struct {
	header *tableHeader
	slots  []slot

	mu   sync.Mutex // guards free
	free []int
}

// openTable opens the table in mem, which is zero at first. Slots in use are those of the earlier process.
func openTable(mem []byte) (*table, error) {
	t := &table{
		header: (*tableHeader)(unsafe.Pointer(&mem[0])),
		slots:  unsafe.Slice((*slot)(unsafe.Pointer(&mem[slotSize])), len(mem)/slotSize-1),
	}
	switch t.header.magic {
	case 0:
		t.header.next = 1
		atomic.StoreUint64(&t.header.magic, tableMagic)
	case tableMagic:
	default:
		return nil, fmt.Errorf("open handle table: magic %x is not ours", t.header.magic)
	}
	// Backwards, so that the first slots are used first and the table touches few pages.
	for i := len(t.slots) - 1; i >= 0; i-- {
		if t.slots[i].handle == 0 {
			t.free = append(t.free, i)
		}
	}
	return t, nil
}

// noSlot is the slot of a handle that is not kept.
const noSlot = -1

// add gives an open file its number and a slot.
func (t *table) add(inode Ino, flags uint32) (handle uint64, index int) {
	handle = atomic.AddUint64(&t.header.next, 1) - 1
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) == 0 {
		return handle, noSlot
	}
	index = t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := &t.slots[index]
	s.inode, s.flags, s.lockOwner = uint64(inode), flags, 0
	atomic.StoreUint64(&s.handle, handle)
	return handle, index
}

// remove frees a slot.
func (t *table) remove(index int) {
	if index == noSlot {
		return
	}
	atomic.StoreUint64(&t.slots[index].handle, 0)
	t.mu.Lock()
	t.free = append(t.free, index)
	t.mu.Unlock()
}

// setLockOwner notes who must lose his locks when the file is closed.
func (t *table) setLockOwner(index int, owner uint64) {
	if index != noSlot {
		atomic.StoreUint64(&t.slots[index].lockOwner, owner)
	}
}

// used calls f for every slot in use.
func (t *table) used(f func(index int, s slot)) {
	for i := range t.slots {
		if t.slots[i].handle != 0 {
			f(i, t.slots[i])
		}
	}
}
