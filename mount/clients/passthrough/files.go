package passthrough

import (
	"os"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handles are the open files by the number that the kernel was given.
type handles struct {
	mu    sync.Mutex // guards what follows
	next  uint64
	files map[uint64]*os.File
	made  map[uint64]bool // those whose file was created with them
}

// init starts the numbers of a client where no other client of the session has any.
func (h *handles) init(epoch uint32) {
	h.next = uint64(epoch) << 32
	h.files, h.made = map[uint64]*os.File{}, map[uint64]bool{}
}

func (h *handles) add(file *os.File, made bool) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.files[h.next] = file
	if made {
		h.made[h.next] = true
	}
	return h.next
}

func (h *handles) get(fh uint64) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[fh]
}

// put keeps a file that was opened again under its old number. Of two that did so at once the first one counts.
func (h *handles) put(fh uint64, file *os.File) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	if first, ok := h.files[fh]; ok {
		file.Close()
		return first
	}
	h.files[fh] = file
	return file
}

func (h *handles) remove(fh uint64) {
	if file, _ := h.take(fh); file != nil {
		file.Close()
	}
}

// take removes a handle and returns its file, nil if this process has not opened it, and whether it was created with it.
func (h *handles) take(fh uint64) (file *os.File, made bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	file, made = h.files[fh], h.made[fh]
	delete(h.files, fh)
	delete(h.made, fh)
	return file, made
}

// reopenable are the flags that mean the same whenever a file is opened. The kernel computes the offsets of O_APPEND itself, and truncates by SETATTR.
const reopenable = unix.O_ACCMODE | unix.O_SYNC | unix.O_DSYNC

// file returns the file of a handle, and opens one again that an earlier client had opened.
func (f *FS) file(fh, node uint64, flags uint32) (*os.File, error) {
	if file := f.files.get(fh); file != nil {
		return file, nil
	}
	file, err := f.reach(node, int(flags)&reopenable)
	if err != nil {
		return nil, err
	}
	return f.files.put(fh, file), nil
}

// anyFile is file for requests that do not say how the handle was opened. The file can then do everything that its user may: which handle is good for what is
// for the kernel to say, and the next request to this one may be another.
func (f *FS) anyFile(fh, node uint64) (*os.File, error) {
	if file := f.files.get(fh); file != nil {
		return file, nil
	}
	file, err := f.reach(node, unix.O_RDWR)
	if err == unix.EACCES || err == unix.EROFS || err == unix.EPERM || err == unix.ETXTBSY {
		file, err = f.open(node, unix.O_RDONLY)
	}
	if err != nil {
		return nil, err
	}
	return f.files.put(fh, file), nil
}

func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.removal.RLock()
	file, err := f.reachHeld(in.NodeId, int(in.Flags)&reopenable)
	if err != nil {
		f.removal.RUnlock()
		return status(err)
	}
	f.opened(in.NodeId, file, in.Flags, false, out)
	return fuse.OK
}

func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	f.removal.RLock()
	var file *os.File
	access := in.Flags
	s := f.makeHeld(in.NodeId, name, &out.EntryOut, func(dir int) (err error) {
		file, access, err = f.createIn(dir, name, in)
		return err
	})
	if s != fuse.OK {
		f.removal.RUnlock()
		if file != nil {
			file.Close()
		}
		return s
	}
	f.opened(out.NodeId, file, access, true, &out.OpenOut)
	return fuse.OK
}

// createIn creates a file and opens it for reading and writing if it can be a backing file then, at least for what was asked for.
func (f *FS) createIn(dir int, name string, in *fuse.CreateIn) (file *os.File, access uint32, err error) {
	flags := int(in.Flags)&(reopenable|unix.O_EXCL|unix.O_TRUNC) | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_CLOEXEC
	wished := flags
	if f.backings.by != nil {
		wished = flags&^unix.O_ACCMODE | unix.O_RDWR
	}
	fd, err := unix.Openat(dir, name, wished, in.Mode&0o7777)
	if err == unix.EACCES && wished != flags {
		// It was there already.
		wished = flags
		fd, err = unix.Openat(dir, name, wished, in.Mode&0o7777)
	}
	if err != nil {
		return nil, 0, err
	}
	return os.NewFile(uintptr(fd), name), uint32(wished), nil
}

// Release that is sent again may have been counted by the client that died, so it is not counted; see table.open.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	const resent = 1 << 63
	if in.Unique&resent == 0 {
		f.released(in.NodeId)
	}
	file, made := f.files.take(in.Fh)
	if file == nil {
		return
	}
	if made {
		f.backings.learn(file)
	}
	file.Close()
}

func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	file, err := f.file(in.Fh, in.NodeId, in.Flags)
	if err != nil {
		return nil, status(err)
	}
	n, err := unix.Pread(int(file.Fd()), buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	reopen := func() (*os.File, error) { return f.file(in.Fh, in.NodeId, in.Flags) }
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		// Pages of a shared mapping come without flags.
		reopen = func() (*os.File, error) { return f.anyFile(in.Fh, in.NodeId) }
	}
	file, err := reopen()
	if err != nil {
		return 0, status(err)
	}
	n, err := unix.Pwrite(int(file.Fd()), data, int64(in.Offset))
	if err != nil {
		return 0, status(err)
	}
	return uint32(n), fuse.OK
}

// Flush reports what closing a file would: nothing is kept back here.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fsync of a file that an earlier client had open syncs what that client wrote too: it is in the host's page cache like everything else.
func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	file, err := f.anyFile(in.Fh, in.NodeId)
	if err != nil {
		return status(err)
	}
	const dataOnly = 1
	if in.FsyncFlags&dataOnly != 0 {
		return status(unix.Fdatasync(int(file.Fd())))
	}
	return status(unix.Fsync(int(file.Fd())))
}

func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return f.write(in.Fh, in.NodeId, func(fd int) error {
		return unix.Fallocate(fd, in.Mode, int64(in.Offset), int64(in.Length))
	})
}

// write runs a call on a file that is open for writing.
func (f *FS) write(fh, node uint64, call func(fd int) error) fuse.Status {
	file, err := f.anyFile(fh, node)
	if err != nil {
		return status(err)
	}
	return status(call(int(file.Fd())))
}

func (f *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	file, err := f.anyFile(in.Fh, in.NodeId)
	if err != nil {
		return status(err)
	}
	// Offsets of these files are not used for anything else, and SEEK_DATA and SEEK_HOLE do not depend on them.
	n, err := unix.Seek(int(file.Fd()), int64(in.Offset), int(in.Whence))
	if err != nil {
		return status(err)
	}
	out.Offset = uint64(n)
	return fuse.OK
}

func (f *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, err := f.anyFile(in.FhIn, in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	var n int
	s := f.write(in.FhOut, in.NodeIdOut, func(to int) (err error) {
		fromAt, toAt := int64(in.OffIn), int64(in.OffOut)
		n, err = unix.CopyFileRange(int(from.Fd()), &fromAt, to, &toAt, int(min(in.Len, 1<<30)), int(in.Flags))
		return err
	})
	return uint32(n), s
}
