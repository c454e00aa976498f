package passthrough

import (
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Directories are read statelessly: every request starts at the offset that the kernel gives, which is the host's own.

func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	dir, err := f.open(in.NodeId, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	out.Fh = f.files.add(dir, false)
	return fuse.OK
}

func (f *FS) ReleaseDir(in *fuse.ReleaseIn) { f.files.remove(in.Fh) }

func (f *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	dir, err := f.file(in.Fh, in.NodeId, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	return status(unix.Fsync(int(dir.Fd())))
}

func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(_ *os.File, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(dir *os.File, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true
		}
		// A name that has vanished is still listed, without attributes, as it would be without READDIRPLUS.
		f.removal.RLock()
		defer f.removal.RUnlock()
		if f.entry(int(dir.Fd()), in.NodeId, e.Name, entry) != fuse.OK {
			*entry = fuse.EntryOut{}
		}
		return true
	})
}

// list hands entries to add until it has no room.
func (f *FS) list(in *fuse.ReadIn, add func(*os.File, fuse.DirEntry) bool) fuse.Status {
	dir, err := f.file(in.Fh, in.NodeId, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	// The kernel reads a directory stream one request at a time, so its position is nobody else's.
	if _, err := unix.Seek(int(dir.Fd()), int64(in.Offset), unix.SEEK_SET); err != nil {
		return status(err)
	}
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.Getdents(int(dir.Fd()), buf)
		if err != nil || n == 0 {
			return status(err)
		}
		for rest := buf[:n]; len(rest) > 0; {
			var e fuse.DirEntry
			rest = rest[e.Parse(rest):]
			if f.hidden.hides(in.NodeId, e.Name) {
				continue
			}
			e.Ino = f.nodeID(e.Ino)
			if !add(dir, e) {
				return fuse.OK
			}
		}
	}
}
