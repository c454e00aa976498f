package passthrough

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rootID is the node id of the root, by the protocol.
const rootID = 1

// table knows a path of every node that the kernel knows, as (parent, name) pairs in memory that outlives the process.
//
//	slot: node uint64 | parent uint64 | lookups uint64 | opens uint32, length uint16 | name [255]byte
//
// A slot with lookups is in use. Its other words are written before; a change of name is a new slot, so that a death in the middle leaves the old name or the
// new one.
type table struct {
	slots []byte
	used  *atomic.Uint64 // slots below this have been in use at some time

	mu    sync.Mutex // guards what follows, and the slots
	index map[uint64]int
	free  []int
}

const (
	tableHeader = 64
	slotSize    = 288
	nameAt      = 32
	maxName     = 255
)

// errTableFull: more nodes than the session's memory has room for are in use at once.
var errTableFull = errors.New("the table of nodes is full")

func openTable(memory []byte) *table {
	t := &table{slots: memory[tableHeader:], used: word(memory, 0), index: map[uint64]int{}}
	for i := range int(t.used.Load()) {
		s := t.slot(i)
		if word(s, 16).Load() == 0 {
			t.free = append(t.free, i)
			continue
		}
		node := word(s, 0).Load()
		if old, ok := t.index[node]; ok {
			// The client died between the two slots of a rename; the path of either is compared with the inode before it is used.
			t.release(old)
		}
		t.index[node] = i
	}
	return t
}

func (t *table) slot(i int) []byte { return t.slots[i*slotSize:][:slotSize] }

func (t *table) capacity() int { return len(t.slots) / slotSize }

// know notes that a node is at (parent, name) and that the kernel has been given it once more.
func (t *table) know(node, parent uint64, name string) error {
	if node == rootID {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if ok && t.names(i, parent, name) {
		word(t.slot(i), 16).Add(1)
		return nil
	}
	lookups, opens := uint64(1), uint32(0)
	if ok {
		lookups += word(t.slot(i), 16).Load()
		opens = t.opens(i)
	}
	return t.place(node, parent, name, lookups, opens)
}

// move gives a known node another name.
func (t *table) move(node, parent uint64, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if !ok || t.names(i, parent, name) {
		return nil
	}
	return t.place(node, parent, name, word(t.slot(i), 16).Load(), t.opens(i))
}

// place writes a new slot for a node and frees the old one. The caller holds mu.
func (t *table) place(node, parent uint64, name string, lookups uint64, opens uint32) error {
	if len(name) > maxName {
		return unix.ENAMETOOLONG
	}
	i, err := t.take()
	if err != nil {
		return err
	}
	s := t.slot(i)
	word(s, 0).Store(node)
	word(s, 8).Store(parent)
	binary.NativeEndian.PutUint32(s[24:], opens)
	binary.NativeEndian.PutUint16(s[28:], uint16(len(name)))
	copy(s[nameAt:], name)
	word(s, 16).Store(lookups)
	if old, ok := t.index[node]; ok {
		t.release(old)
	}
	t.index[node] = i
	return nil
}

func (t *table) take() (int, error) {
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		return i, nil
	}
	i := int(t.used.Load())
	if i >= t.capacity() {
		return 0, errTableFull
	}
	t.used.Store(uint64(i + 1))
	return i, nil
}

func (t *table) release(i int) {
	word(t.slot(i), 16).Store(0)
	t.free = append(t.free, i)
}

func (t *table) names(i int, parent uint64, name string) bool {
	s := t.slot(i)
	return word(s, 8).Load() == parent && string(t.name(s)) == name
}

func (t *table) name(s []byte) []byte {
	return s[nameAt:][:binary.NativeEndian.Uint16(s[28:])]
}

func (t *table) opens(i int) uint32 { return binary.NativeEndian.Uint32(t.slot(i)[24:]) }

// open counts the open handles of a node. It may count too many after a crash, never too few.
func (t *table) open(node uint64, by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.index[node]; ok {
		n := max(0, int(t.opens(i))+by)
		binary.NativeEndian.PutUint32(t.slot(i)[24:], uint32(n))
	}
}

// isOpen tells whether somebody may have the node open.
func (t *table) isOpen(node uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	return ok && t.opens(i) > 0
}

// knows tells whether the kernel knows a node.
func (t *table) knows(node uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.index[node]
	return ok
}

// forget takes back what the kernel has been given. It returns where the node was if the kernel knows it no more.
func (t *table) forget(node, lookups uint64) (parent uint64, name string, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if !ok {
		return 0, "", false
	}
	s := t.slot(i)
	if left := word(s, 16).Load(); left > lookups {
		word(s, 16).Store(left - lookups)
		return 0, "", false
	}
	parent, name = word(s, 8).Load(), string(t.name(s))
	t.release(i)
	delete(t.index, node)
	return parent, name, true
}

// at returns the place of a node.
func (t *table) at(node uint64) (parent uint64, name string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.atLocked(node)
}

func (t *table) atLocked(node uint64) (uint64, string, bool) {
	i, ok := t.index[node]
	if !ok {
		return 0, "", false
	}
	s := t.slot(i)
	return word(s, 8).Load(), string(t.name(s)), true
}

// path returns the path of a node below the root, "." for the root itself.
func (t *table) path(node uint64) (string, error) {
	if node == rootID {
		return ".", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for length := 0; node != rootID; {
		parent, name, ok := t.atLocked(node)
		if !ok {
			return "", unix.ESTALE
		}
		names = append(names, name)
		// A cycle cannot come from renames, but nothing here may loop for ever on memory that another process has written.
		if length += len(name) + 1; length > unix.PathMax {
			return "", unix.ENAMETOOLONG
		}
		node = parent
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String(), nil
}

func word(b []byte, at int) *atomic.Uint64 {
	_ = b[at+7]
	return (*atomic.Uint64)(unsafe.Pointer(&b[at]))
}
