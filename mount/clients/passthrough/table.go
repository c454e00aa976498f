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
//	slot: node uint64 | parent uint64 | lookups uint64 | opens uint32, length uint16, intended uint16 | backing uint64 | name [255]byte
//
// A slot with lookups is in use. Its other words are written before; a change of name is a new slot, so that a death in the middle leaves the old name, the
// new one, or both. A rename writes the new name before it happens, as intended; see moves.go.
type table struct {
	slots []byte
	used  *atomic.Uint64 // slots below this have been in use at some time

	mu    sync.Mutex // guards what follows, and the slots
	index map[uint64]int
	free  []int
	// twice are the slots of nodes that a client has left with several, until settle.
	twice map[uint64][]int
	// hidden is the node of the hidden directory, 0 while there is none. A node that is known by its name there stays so: that name is the last to go.
	hidden uint64
}

const (
	tableHeader = 64
	slotSize    = 296
	backingAt   = 32
	nameAt      = 40
	maxName     = 255
)

// errTableFull: more nodes than the session's memory has room for are in use at once.
var errTableFull = errors.New("the table of nodes is full")

func openTable(memory []byte) *table {
	t := &table{slots: memory[tableHeader:], used: word(memory, 0), index: map[uint64]int{}, twice: map[uint64][]int{}}
	for i := range int(t.used.Load()) {
		s := t.slot(i)
		if word(s, 16).Load() == 0 {
			t.free = append(t.free, i)
			continue
		}
		node := word(s, 0).Load()
		if old, ok := t.index[node]; ok {
			// The client died between the two slots of a change of name.
			if t.twice[node] == nil {
				t.twice[node] = []int{old}
			}
			t.twice[node] = append(t.twice[node], i)
			if t.intended(i) {
				continue
			}
		}
		t.index[node] = i
	}
	t.dropOrphans()
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
	if ok && (t.isHidden(i) || t.names(i, parent, name)) {
		word(t.slot(i), 16).Add(1)
		return nil
	}
	kept := use{lookups: 1}
	if ok {
		kept = t.use(i)
		kept.lookups++
	}
	return t.place(node, parent, name, kept)
}

// move gives a known node another name.
func (t *table) move(node, parent uint64, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if !ok || t.isHidden(i) || t.names(i, parent, name) {
		return nil
	}
	return t.place(node, parent, name, t.use(i))
}

// use is what a slot knows of a node besides its name.
type use struct {
	lookups uint64
	opens   uint32
	backing int32
}

func (t *table) use(i int) use {
	s := t.slot(i)
	return use{lookups: word(s, 16).Load(), opens: t.opens(i), backing: int32(word(s, backingAt).Load())}
}

// place writes a new slot for a node and frees the old one. The caller holds mu.
func (t *table) place(node, parent uint64, name string, u use) error {
	i, err := t.write(node, parent, name, u, false)
	if err != nil {
		return err
	}
	if old, ok := t.index[node]; ok {
		t.release(old)
	}
	t.index[node] = i
	return nil
}

// write fills a free slot. The caller holds mu.
func (t *table) write(node, parent uint64, name string, u use, intended bool) (int, error) {
	if len(name) > maxName {
		return 0, unix.ENAMETOOLONG
	}
	i, err := t.take()
	if err != nil {
		return 0, err
	}
	s := t.slot(i)
	word(s, 0).Store(node)
	word(s, 8).Store(parent)
	binary.NativeEndian.PutUint32(s[24:], u.opens)
	binary.NativeEndian.PutUint16(s[28:], uint16(len(name)))
	t.intend(i, intended)
	copy(s[nameAt:], name)
	word(s, backingAt).Store(uint64(u.backing))
	word(s, 16).Store(u.lookups)
	return i, nil
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

// open counts the open handles of a node and returns how many there are, 0 for a node that is not in the table. It may count too many after a crash, never too few.
func (t *table) open(node uint64, by int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if !ok {
		return 0
	}
	n := max(0, int(t.opens(i))+by)
	binary.NativeEndian.PutUint32(t.slot(i)[24:], uint32(n))
	return n
}

// isOpen tells whether somebody may have the node open.
func (t *table) isOpen(node uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	return ok && t.opens(i) > 0
}

// backing returns the number of a node's backing file, 0 if it has none.
func (t *table) backing(node uint64) int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if !ok {
		return 0
	}
	return t.use(i).backing
}

// back notes the number of a node's backing file, 0 for none.
func (t *table) back(node uint64, number int32) (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if ok {
		word(t.slot(i), backingAt).Store(uint64(number))
	}
	return ok
}

// backings returns the numbers of all backing files.
func (t *table) backings() []int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var numbers []int32
	for _, i := range t.index {
		if u := t.use(i); u.backing > 0 {
			numbers = append(numbers, u.backing)
		}
	}
	return numbers
}

// knows tells whether the kernel knows a node.
func (t *table) knows(node uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.index[node]
	return ok
}

// forget takes back what the kernel has been given. It returns what the node leaves if the kernel knows it no more.
func (t *table) forget(node, lookups uint64) (was forgotten, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	if !ok {
		return forgotten{}, false
	}
	s := t.slot(i)
	if left := word(s, 16).Load(); left > lookups {
		word(s, 16).Store(left - lookups)
		return forgotten{}, false
	}
	was = forgotten{word(s, 8).Load(), string(t.name(s)), t.use(i).backing}
	t.release(i)
	delete(t.index, node)
	return was, true
}

// forgotten is what a node leaves.
type forgotten struct {
	parent  uint64
	name    string
	backing int32
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
