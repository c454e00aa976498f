package client

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// releaseAbove is how much of the ring must have been used before an empty log gives its pages back: less is not worth a system
// call.
const releaseAbove = 1 << 20

// release gives the ring's pages back to the system. They read as zero afterwards, which an empty log allows. It is only
// about memory: an error (memory that is not a shared mapping) changes nothing. mu is held.
func (l *WriteLog) release() {
	if l.spare < releaseAbove {
		return
	}
	page := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(&l.ring[0]))
	skip := (page - begin%page) % page
	length := (uintptr(l.spare) - skip) / page * page
	_ = unix.Madvise(l.ring[skip:skip+length], unix.MADV_REMOVE)
	l.spare = 0
}
