package client

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// The session's memory, a sealed memfd that the broker made, is laid out as
//
//	header    one page: magic, layout, number of clients so far, highest request number seen
//	journal   results of requests that must not be executed twice
//	state     small key-value pairs
//	client    the client's own: write log, table of nodes
//
// It is shared, so what is written survives the process without any system call.
const (
	headerSize  = 4 << 10
	journalSize = 2 << 20
	stateSize   = 128 << 10
	clientAt    = headerSize + journalSize + stateSize

	layoutMagic   = 0x53444d5445000000 // "SDMTE", then the layout's number
	layoutVersion = 1
)

// memory is the mapping of a session's memory.
type memory struct {
	all []byte
	// The words of the header.
	magic, clients, highest *atomic.Uint64
}

// mapMemory maps the session's memory; the file may be closed afterwards. The mapping lives as long as the process.
func mapMemory(f *os.File) (*memory, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the session's memory: %w", err)
	}
	if info.Size() != mount.MemorySize {
		return nil, fmt.Errorf("the session's memory has %d bytes, not %d", info.Size(), mount.MemorySize)
	}
	// A file that may shrink could end this process with SIGBUS at any later access.
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("the session's memory is not sealed: %w", mount.ErrRefused)
	}
	all, err := unix.Mmap(int(f.Fd()), 0, mount.MemorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the session's memory: %w", err)
	}
	return newMemory(all)
}

func newMemory(all []byte) (*memory, error) {
	m := &memory{all: all, magic: word(all, 0), clients: word(all, 8), highest: word(all, 16)}
	if !m.magic.CompareAndSwap(0, layoutMagic|layoutVersion) && m.magic.Load() != layoutMagic|layoutVersion {
		return nil, fmt.Errorf("the session's memory has layout %#x, which this client does not know", m.magic.Load())
	}
	return m, nil
}

func (m *memory) journal() []byte { return m.all[headerSize:][:journalSize:journalSize] }
func (m *memory) state() []byte   { return m.all[headerSize+journalSize:][:stateSize:stateSize] }
func (m *memory) client() []byte  { return m.all[clientAt:] }

// word is the 64-bit word at a multiple of 8 in memory that several processes share one after another.
func word(b []byte, at int) *atomic.Uint64 {
	_ = b[at+7]
	return (*atomic.Uint64)(unsafe.Pointer(&b[at]))
}

// raise lets a shared word only grow.
func raise(w *atomic.Uint64, to uint64) {
	for {
		old := w.Load()
		if to <= old || w.CompareAndSwap(old, to) {
			return
		}
	}
}

// order is that of the machine, in memory as in messages of the kernel.
var order = binary.NativeEndian
