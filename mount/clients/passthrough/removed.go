package passthrough

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// removed keeps files reachable that have no name any more, for as long as the kernel knows them: somebody may be about to open what he has just looked up. Files that
// are open get a hidden name as well, because this map does not survive the process.
type removed struct {
	mu     sync.Mutex // guards places
	places map[uint64]*os.File
}

// keep is called before a name is removed.
func (r *removed) keep(f *FS, dir int, name string) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return // the removal says what is wrong
	}
	place := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink > 1 || !f.table.knows(f.nodeID(st.Ino)) {
		place.Close()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.places[f.nodeID(st.Ino)]; old != nil {
		old.Close()
	}
	if r.places == nil {
		r.places = map[uint64]*os.File{}
	}
	r.places[f.nodeID(st.Ino)] = place
}

// open opens a file that was removed.
func (r *removed) open(node uint64, flags int) (file *os.File, found bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	place := r.places[node]
	if place == nil {
		return nil, false, nil
	}
	if flags&unix.O_PATH != 0 {
		fd, err := unix.FcntlInt(place.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, true, err
		}
		return os.NewFile(uintptr(fd), place.Name()), true, nil
	}
	fd, err := unix.Open(procPath(place), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, true, err
	}
	return os.NewFile(uintptr(fd), place.Name()), true, nil
}

// forget drops a file that the kernel does not know any more.
func (r *removed) forget(node uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place := r.places[node]; place != nil {
		place.Close()
		delete(r.places, node)
	}
}
