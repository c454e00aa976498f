package passthrough

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// modes is held for reading while a mode is looked at and for writing while one is changed, so that nobody sees a mode that reach has made.
type modes struct{ sync.RWMutex }

// reachKey is where the mode is kept that a file must get back.
const reachKey = "passthrough/mode"

// reach opens a file also if its mode does not let its own owner. The kernel has checked who may (default_permissions), and allows more than this process can do: a file
// that was made read-only may be written through the handle that has made it, and so may one whose mode was changed after it was opened; git does the
// first. When a handle is opened again, or a request is executed again, that has to be had anew. The mode is changed for the moment of the open. What it was is
// kept with the session, so that the next client puts it back should this one die in that moment.
func (f *FS) reach(node uint64, flags int) (*os.File, error) {
	return f.settled(func() (*os.File, error) { return f.reachHeld(node, flags) })
}

// reachHeld is reach for callers that hold removal.
func (f *FS) reachHeld(node uint64, flags int) (*os.File, error) {
	file, err := f.find(node, flags)
	if !errors.Is(err, unix.EACCES) {
		return file, err
	}
	f.modes.Lock()
	defer f.modes.Unlock()
	place, err := f.find(node, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(place.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != unix.Geteuid() {
		return nil, unix.EACCES
	}
	mode := st.Mode & 0o7777
	if err := f.keepMode(node, mode); err != nil {
		return nil, err
	}
	const readWrite = 0o600
	if err := unix.Chmod(procPath(place), mode|readWrite); err != nil {
		return nil, errors.Join(err, f.forgetMode())
	}
	file, err = f.find(node, flags)
	if back := unix.Chmod(procPath(place), mode); back != nil {
		log.Printf("give a file its mode back: %v", back)
		return file, err
	}
	if forget := f.forgetMode(); forget != nil {
		log.Printf("forget the mode of a file: %v", forget)
	}
	return file, err
}

func (f *FS) keepMode(node uint64, mode uint32) error {
	if err := f.keep.Put(reachKey, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint64(nil, node), mode)); err != nil {
		return fmt.Errorf("keep the mode of a file: %w", err)
	}
	return nil
}

func (f *FS) forgetMode() error { return f.keep.Put(reachKey, nil) }

// restoreMode gives a file its mode back that a client was about to open when it died.
func (f *FS) restoreMode() {
	b, ok := f.keep.Get(reachKey)
	if !ok || len(b) != 12 {
		return
	}
	place, err := f.path(binary.NativeEndian.Uint64(b))
	if err == nil {
		err = unix.Chmod(procPath(place), binary.NativeEndian.Uint32(b[8:]))
		place.Close()
	}
	if err := errors.Join(err, f.forgetMode()); err != nil {
		log.Printf("give a file its mode back that an earlier client has opened: %v", err)
	}
}
