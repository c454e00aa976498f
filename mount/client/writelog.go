package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Errors of a write log.
var (
	// ErrLogFull: no room for the record; the oldest node must be flushed first.
	ErrLogFull = errors.New("write log full")
	// ErrLogCorrupt: the memory holds something that this library did not write.
	ErrLogCorrupt = errors.New("write log corrupt")
)

// Layout of a log. All numbers are in host order: the memory never leaves the machine.
//
//	superblock  magic, size of the ring, head, tail (virtual offsets: they only grow; modulo the size they are positions)
//	ring        records, each a header and its data, padded to recordAlign; a record never wraps
const (
	logMagic       = uint64(0x53_4d_57_4c_4f_47_30_31) // "SMWLOG01"
	superblockSize = 64
	recordHeader   = 40
	recordAlign    = 64
	// maxRecords bounds the index, which is in the process's own memory, when writes are tiny.
	maxRecords = 1 << 16
)

// A record's state. Its header and data are in place before it becomes stateLive, so that a process which dies half way
// leaves a record that nobody replays; its WRITE was not answered either.
const (
	stateFree uint32 = iota
	stateLive
	stateDead
	statePad
)

// WriteLog keeps writes that were acknowledged but are not yet on stable storage, in memory that outlives the process. A
// write is appended before it is answered and dropped when its node has been flushed; what is left when the process dies is
// replayed by the next one. It may be used by several goroutines.
//
// Order: records of one node are replayed in the order in which they were appended. Whatever changes the same bytes by
// another way (truncate, fallocate, copy, a change of mtime) must flush the node first, or a replay would undo it.
type WriteLog struct {
	mem  []byte // superblock and ring
	ring []byte

	mu    sync.Mutex // guards all below and the superblock
	order []*Record  // every record between tail and head, the oldest first
	nodes map[uint64][]*Record
	freed chan struct{} // closed when room has been made
	spare uint64        // high-water mark of the ring since its pages were given back
	used  time.Time     // when the log was last not empty
	keep  time.Duration // how long an empty log keeps its pages
	again uint64        // bytes that Replay has had written
}

// keepPages is how long an empty log keeps its pages. To get one again costs ten times what it costs to fill it, so a program that writes every now and then should not
// have to.
const keepPages = time.Minute

// Record is one logged write.
type Record struct {
	Node   uint64
	Offset int64

	at      uint64 // virtual offset of the header
	length  uint32 // of the data
	born    time.Time
	applied bool
	dead    bool
}

// OpenWriteLog opens the log in mem: memory that is all zero becomes an empty log; otherwise the records of the earlier
// process are there for Replay. mem must be page-aligned, shared, and used by nothing else. A corrupt log is an error and
// stays as it is; ResetWriteLog empties it.
func OpenWriteLog(mem []byte) (*WriteLog, error) {
	if len(mem) < superblockSize+16*recordAlign {
		return nil, fmt.Errorf("open write log: %d bytes are too few", len(mem))
	}
	size := (len(mem) - superblockSize) / recordAlign * recordAlign
	l := &WriteLog{
		mem:   mem,
		ring:  mem[superblockSize : superblockSize+size],
		nodes: make(map[uint64][]*Record),
		freed: make(chan struct{}),
		keep:  keepPages,
	}
	if *l.word(0) == 0 {
		*l.word(1) = uint64(size)
		atomic.StoreUint64(l.word(0), logMagic)
		return l, nil
	}
	if *l.word(0) != logMagic || *l.word(1) != uint64(size) {
		return nil, fmt.Errorf("open write log: superblock: %w", ErrLogCorrupt)
	}
	if err := l.scan(); err != nil {
		return nil, fmt.Errorf("open write log: %w", err)
	}
	return l, nil
}

// ResetWriteLog makes mem an empty log, whatever it held.
func ResetWriteLog(mem []byte) (*WriteLog, error) {
	clear(mem[:min(len(mem), superblockSize)])
	return OpenWriteLog(mem)
}

// word is the n-th number of the superblock: magic, size, head, tail.
func (l *WriteLog) word(n int) *uint64 {
	return (*uint64)(unsafe.Pointer(&l.mem[n*8]))
}

func (l *WriteLog) head() uint64 { return atomic.LoadUint64(l.word(2)) }
func (l *WriteLog) tail() uint64 { return atomic.LoadUint64(l.word(3)) }

// Capacity is the number of bytes that records and their headers may take.
func (l *WriteLog) Capacity() int { return len(l.ring) }

// Used is the number of bytes between the oldest and the newest record.
func (l *WriteLog) Used() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.head() - l.tail())
}

// Crowded tells that more than half of the log is taken, in bytes or in records.
func (l *WriteLog) Crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head()-l.tail() > uint64(len(l.ring))/2 || len(l.order) > maxRecords/2
}

// Freed returns a channel that is closed when the oldest record is dropped next, which is when Append may find room again.
func (l *WriteLog) Freed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freed
}

// Rest is to be called every few seconds. It gives the pages of a log that has been empty for a minute back to the system.
func (l *WriteLog) Rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 && time.Since(l.used) >= l.keep {
		l.release()
	}
}

// MaxData is the largest write that the log takes.
func (l *WriteLog) MaxData() int { return len(l.ring)/4 - recordHeader }

// Append logs a write before the file system executes it. When it returns, the write survives the process. ErrLogFull
// means that room must be made first: see Oldest. data is copied.
func (l *WriteLog) Append(node uint64, offset int64, data []byte) (*Record, error) {
	if len(data) > l.MaxData() {
		return nil, fmt.Errorf("append %d bytes: %w", len(data), syscall.EFBIG)
	}
	r, err := l.reserve(node, offset, uint32(len(data)))
	if err != nil {
		return nil, err
	}
	pos := r.at % uint64(len(l.ring))
	copy(l.ring[pos+recordHeader:], data)
	l.setState(r.at, stateLive)
	return r, nil
}

// Applied tells that the file system has executed the write: a flush that begins from now on covers it.
func (l *WriteLog) Applied(r *Record) {
	l.mu.Lock()
	r.applied = true
	l.mu.Unlock()
}

// Discard takes back a write that the file system has refused.
func (l *WriteLog) Discard(r *Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kill(r)
	l.forget(r.Node)
	l.reclaim()
}

// Flushing is the set of records that a flush covers.
type Flushing struct {
	log     *WriteLog
	node    uint64
	records []*Record
}

// Begin must be called before a node is flushed: it remembers which of the node's writes the flush will cover.
func (l *WriteLog) Begin(node uint64) Flushing {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := Flushing{log: l, node: node}
	for _, r := range l.nodes[node] {
		if r.applied {
			f.records = append(f.records, r)
		}
	}
	return f
}

// BeginAll is Begin for all nodes at once.
func (l *WriteLog) BeginAll() []Flushing {
	l.mu.Lock()
	nodes := make([]uint64, 0, len(l.nodes))
	for node := range l.nodes {
		nodes = append(nodes, node)
	}
	l.mu.Unlock()
	all := make([]Flushing, 0, len(nodes))
	for _, node := range nodes {
		all = append(all, l.Begin(node))
	}
	return all
}

// Empty tells that the flush covers no logged write.
func (f Flushing) Empty() bool { return len(f.records) == 0 }

// Done drops what the flush has brought to stable storage.
func (f Flushing) Done() {
	if f.Empty() {
		return
	}
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	for _, r := range f.records {
		f.log.kill(r)
	}
	f.log.forget(f.node)
	f.log.reclaim()
}

// Has tells whether the node has logged writes.
func (l *WriteLog) Has(node uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.nodes[node]) > 0
}

// Oldest is the node whose record stands first, which is the one to flush when the log is full.
func (l *WriteLog) Oldest() (node uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		return 0, false
	}
	return l.order[0].Node, true
}

// OlderThan are the nodes that have a record of at least this age.
func (l *WriteLog) OlderThan(age time.Duration) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var nodes []uint64
	for node, records := range l.nodes {
		if len(records) > 0 && time.Since(records[0].born) >= age {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// Replay gives the records of the earlier process to write, the oldest first. It stops at the first error. It must end
// before the first Append. A record for which write returns ESTALE is dropped: its file is gone.
func (l *WriteLog) Replay(write func(r *Record, data []byte) error) error {
	l.mu.Lock()
	records := append([]*Record(nil), l.order...)
	l.mu.Unlock()
	for _, r := range records {
		if r.applied || r.dead {
			continue
		}
		pos := r.at % uint64(len(l.ring))
		err := write(r, l.ring[pos+recordHeader:][:r.length])
		if errors.Is(err, syscall.ESTALE) {
			l.Discard(r)
			continue
		}
		if err != nil {
			return fmt.Errorf("replay write at %d of node %d: %w", r.Offset, r.Node, err)
		}
		l.Applied(r)
		l.mu.Lock()
		l.again += uint64(r.length)
		l.mu.Unlock()
	}
	return nil
}

// Replayed is how many bytes Replay has had written.
func (l *WriteLog) Replayed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}

// reserve finds room, writes the header and moves the head. A record does not wrap: what is left at the ring's end is padded.
func (l *WriteLog) reserve(node uint64, offset int64, length uint32) (*Record, error) {
	need := recordSize(length)
	l.mu.Lock()
	defer l.mu.Unlock()
	size := uint64(len(l.ring))
	head := l.head()
	pad := uint64(0)
	if left := size - head%size; left < need {
		pad = left
	}
	if head+pad+need-l.tail() > size || len(l.order) >= maxRecords {
		return nil, ErrLogFull
	}
	if pad > 0 {
		l.putHeader(head, statePad, uint32(pad-recordHeader), 0, 0)
		head += pad
	}
	r := &Record{Node: node, Offset: offset, at: head, length: length, born: time.Now()}
	l.putHeader(head, stateFree, length, node, offset)
	atomic.StoreUint64(l.word(2), head+need)
	l.spare = max(l.spare, min(size, head%size+need))
	l.order = append(l.order, r)
	l.nodes[node] = append(l.nodes[node], r)
	return r, nil
}

// recordSize is the room that a record takes. Positions are multiples of recordAlign, so a pad always has room for its header.
func recordSize(length uint32) uint64 {
	return (uint64(length) + recordHeader + recordAlign - 1) / recordAlign * recordAlign
}

// putHeader writes state, length, node, offset and, as a check, the virtual offset.
func (l *WriteLog) putHeader(at uint64, state, length uint32, node uint64, offset int64) {
	h := l.ring[at%uint64(len(l.ring)):][:recordHeader]
	binary.NativeEndian.PutUint32(h[4:], length)
	binary.NativeEndian.PutUint64(h[8:], node)
	binary.NativeEndian.PutUint64(h[16:], uint64(offset))
	binary.NativeEndian.PutUint64(h[24:], at)
	l.setState(at, state)
}

// setState is atomic so that everything written before it is in place when it is seen.
func (l *WriteLog) setState(at uint64, state uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&l.ring[at%uint64(len(l.ring))])), state)
}

// kill marks a record dead. mu is held.
func (l *WriteLog) kill(r *Record) {
	if r.dead {
		return
	}
	r.dead = true
	l.setState(r.at, stateDead)
}

// forget removes the node's dead records from its list. mu is held.
func (l *WriteLog) forget(node uint64) {
	live := l.nodes[node][:0]
	for _, r := range l.nodes[node] {
		if !r.dead {
			live = append(live, r)
		}
	}
	if len(live) == 0 {
		delete(l.nodes, node)
		return
	}
	l.nodes[node] = live
}

// reclaim moves the tail over dead records. An empty log starts again at the ring's beginning, on pages that are there already. mu
// is held.
func (l *WriteLog) reclaim() {
	n := 0
	for n < len(l.order) && l.order[n].dead {
		n++
	}
	if n == 0 {
		return
	}
	close(l.freed)
	l.freed = make(chan struct{})
	clear(l.order[:n])
	l.order = l.order[n:]
	if len(l.order) > 0 {
		atomic.StoreUint64(l.word(3), l.order[0].at)
		return
	}
	// The tail goes first: a tail beyond the head reads as empty, should the process die between the two.
	size := uint64(len(l.ring))
	start := (l.head() + size - 1) / size * size
	atomic.StoreUint64(l.word(3), start)
	atomic.StoreUint64(l.word(2), start)
	l.used = time.Now()
}

// scan rebuilds the index from the memory.
func (l *WriteLog) scan() error {
	size := uint64(len(l.ring))
	head, at := l.head(), l.tail()
	if at > head {
		atomic.StoreUint64(l.word(2), at)
		return nil
	}
	if head-at > size || head%recordAlign != 0 || at%recordAlign != 0 {
		return fmt.Errorf("head %d, tail %d: %w", head, at, ErrLogCorrupt)
	}
	for at < head {
		h := l.ring[at%size:]
		length := binary.NativeEndian.Uint32(h[4:])
		if binary.NativeEndian.Uint64(h[24:]) != at || at%size+recordSize(length) > size || at+recordSize(length) > head {
			return fmt.Errorf("record at %d: %w", at, ErrLogCorrupt)
		}
		r := &Record{
			Node: binary.NativeEndian.Uint64(h[8:]), Offset: int64(binary.NativeEndian.Uint64(h[16:])),
			at: at, length: length, born: time.Now(),
		}
		r.dead = binary.NativeEndian.Uint32(h) != stateLive
		l.order = append(l.order, r)
		if !r.dead {
			l.nodes[r.Node] = append(l.nodes[r.Node], r)
		}
		at += recordSize(length)
	}
	l.spare = size
	l.mu.Lock()
	l.reclaim()
	l.mu.Unlock()
	return nil
}
