package client

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// resent marks the number of a request that the kernel sends once more, because the client that took it died (FUSE_UNIQUE_RESEND).
const resent = 1 << 63

// The fates of a request in the journal.
const (
	fateUnknown = iota // no client has begun to execute it
	fateBegun          // a client has begun, and died before it knew the result
	fateDone           // it was executed; only the answer is missing
)

// fate is what the journal knows of a request. nodeid is the object that the request was about, where its result cannot be told from a result before.
type fate struct {
	state  int
	status fuse.Status
	node   uint64
}

// journal records requests that must not be executed twice: begun before, done after the execution, and both before the answer. It is a ring in the
// session's memory, so recording costs a few stores and no system call. An entry may be overwritten once its answer has been
// written, which is long past when the ring comes round.
//
//	unique uint64 | state uint32, status uint32 | node uint64 | 0
type journal struct {
	region  []byte
	cursor  *atomic.Uint64
	entries uint64

	mu sync.Mutex // guards earlier
	// earlier holds what former clients recorded; a request leaves it when it has been looked up, as it is then recorded anew.
	earlier map[uint64]fate
}

const (
	journalHeader = 32
	entrySize     = 32
)

func openJournal(region []byte, readBack bool) *journal {
	j := &journal{
		region:  region,
		cursor:  word(region, 0),
		entries: uint64(len(region)-journalHeader) / entrySize,
		earlier: map[uint64]fate{},
	}
	if !readBack {
		return j
	}
	for i := range j.entries {
		j.recall(i)
	}
	return j
}

// recall takes over what a former client has left in an entry. A result that is older than many later requests has reached the kernel long
// ago. One request may have two entries, if two clients died over it: the result counts.
func (j *journal) recall(i uint64) {
	const recent = 8 << 10
	e := j.entry(i)
	unique, word1 := word(e, 0).Load(), word(e, 8).Load()
	state := int(uint32(word1))
	age := (j.cursor.Load() + j.entries - i) % j.entries
	if unique == 0 || state == fateUnknown || state == fateDone && age > recent {
		return
	}
	if old, ok := j.earlier[unique]; ok && old.state == fateDone {
		return
	}
	j.earlier[unique] = fate{state, fuse.Status(word1 >> 32), word(e, 16).Load()}
}

func (j *journal) entry(i uint64) []byte {
	return j.region[journalHeader+(i%j.entries)*entrySize:][:entrySize]
}

// fate looks a request up that the kernel sent again. Requests that it sends for the first time have none.
func (j *journal) fate(unique uint64) fate {
	if unique&resent == 0 {
		return fate{}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.earlier[unique&^resent]
	delete(j.earlier, unique&^resent)
	return f
}

// begin records that a request is about to be executed. The entry that it returns is for done.
func (j *journal) begin(unique, node uint64) []byte {
	e := j.free()
	word(e, 8).Store(fateUnknown)
	word(e, 0).Store(unique &^ resent)
	word(e, 16).Store(node)
	word(e, 8).Store(fateBegun)
	return e
}

// free returns the next entry whose request is not being executed right now.
func (j *journal) free() []byte {
	const tries = 64 // so many requests that take longer than a whole round of the ring are not to be expected
	var e []byte
	for range tries {
		e = j.entry(j.cursor.Add(1))
		if uint32(word(e, 8).Load()) != fateBegun {
			break
		}
	}
	return e
}

func (j *journal) done(e []byte, status fuse.Status) {
	word(e, 8).Store(uint64(uint32(status))<<32 | fateDone)
}
