package passthrough

import (
	"errors"
	"log"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/client"
)

// backer lets the kernel read and write files by itself; see package client.
type backer interface {
	CanBack() bool
	Back(f *os.File) (int32, error)
	Unback(number int32)
	Known(numbers []int32) error
}

// backings decides how nodes are opened. While a node is open the kernel does not mix: all its handles are backed by one file, or this process serves all of them
// (fs/fuse/iomode.c). So the first handle decides, and the number of a backing file is kept in the table until the last one is released, also by a next client.
//
// The kernel ends the way in which a node is open before it sends the last RELEASE. The table may thus believe longer than the kernel that a node is open, never shorter,
// and a handle that is opened in the way of the table is always right.
type backings struct {
	by    backer // nil: every file is served by this process
	count atomic.Int32
	// series is how many of the files that were created last have stayed small.
	series atomic.Int32
	// turns are held, by a node's number, from counting a handle until it is decided how it is opened.
	turns [64]sync.Mutex
}

func (b *backings) init(keep keeper, t *table) {
	by, ok := keep.(backer)
	if !ok || !by.CanBack() {
		return
	}
	known := t.backings()
	if err := by.Known(known); err != nil {
		log.Printf("tell which files the kernel serves by itself: %v", err)
		return
	}
	b.by = by
	b.count.Store(int32(len(known)))
}

// Asking the broker takes as long as a few requests to this process, so it is not worth it for a small file that is only read, nor for a new file where the last ones
// have stayed small.
const (
	small  = 64 << 10
	always = 8 // so many small new files make a series
)

// errSmall: reading the file costs less than asking the broker about it.
var errSmall = errors.New("file is small")

// learn looks how large a file has become that was created with the handle that is now released.
func (b *backings) learn(file *os.File) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Size >= small {
		b.series.Store(0)
		return
	}
	b.series.Add(1)
}

func (b *backings) turn(node uint64) *sync.Mutex { return &b.turns[node%uint64(len(b.turns))] }

// opened answers with a new handle of a node; the caller holds removal for reading, which is given back before the broker is asked.
func (f *FS) opened(node uint64, file *os.File, flags uint32, made bool, out *fuse.OpenOut) {
	turn := f.backings.turn(node)
	turn.Lock()
	defer turn.Unlock()
	first := f.table.open(node, 1) == 1
	f.removal.RUnlock()
	out.Fh = f.files.add(file, made)
	// Closing a handle has nothing to write out. Without FLUSH, nobody who closes a file has to wait for a client.
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	number := f.table.backing(node)
	if number == 0 && first && (!made || f.backings.series.Load() < always) {
		number = f.back(node, file, flags)
	}
	if number > 0 {
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
		out.BackingID = number
	}
}

// released counts a handle that is gone. The last one takes the backing file with it.
func (f *FS) released(node uint64) {
	turn := f.backings.turn(node)
	turn.Lock()
	number := int32(0)
	if f.table.open(node, -1) == 0 {
		number = f.table.backing(node)
		f.table.back(node, 0)
	}
	turn.Unlock()
	f.unback(number)
}

// back makes a file the backing file of a node that nobody has open yet, and returns its number, 0 if that is not possible.
func (f *FS) back(node uint64, file *os.File, flags uint32) int32 {
	if f.backings.by == nil || f.backings.count.Load() >= client.MaxBackings {
		return 0
	}
	both, err := f.readWrite(node, file, int(flags)&unix.O_ACCMODE)
	if err != nil {
		return 0
	}
	if both != file {
		defer both.Close()
	}
	number, err := f.backings.by.Back(both)
	if err != nil {
		return 0
	}
	f.backings.count.Add(1)
	if !f.table.back(node, number) {
		f.unback(number)
		return 0
	}
	return number
}

// readWrite returns a file that may be a backing file: the kernel opens it again with what the next handle asks for, and asks for a file that is open for both.
func (f *FS) readWrite(node uint64, file *os.File, access int) (*os.File, error) {
	if access == unix.O_RDWR {
		return file, nil
	}
	if access == unix.O_RDONLY {
		if err := worthReading(file); err != nil {
			return nil, err
		}
	}
	both, err := f.find(node, unix.O_RDWR)
	if err == unix.EROFS && access == unix.O_RDONLY {
		return file, nil
	}
	return both, err
}

// worthReading tells whether a file that is opened for reading only should have a backing file.
func worthReading(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&0o111 != 0 {
		// Nobody can execute a file while it is open for writing, not even on the host and for a moment.
		return unix.ETXTBSY
	}
	if st.Size < small {
		return errSmall
	}
	return nil
}

func (f *FS) unback(number int32) {
	if number == 0 || f.backings.by == nil {
		return
	}
	f.backings.count.Add(-1)
	f.backings.by.Unback(number)
}
