package passthrough

import (
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if file := f.files.get(in.Fh()); file != nil && in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		return f.attributes(int(file.Fd()), in.NodeId, out)
	}
	place, err := f.path(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer place.Close()
	return f.attributes(int(place.Fd()), in.NodeId, out)
}

func (f *FS) attributes(fd int, node uint64, out *fuse.AttrOut) fuse.Status {
	// A removal makes a hidden name and notes it; in between the two would not agree.
	f.removal.RLock()
	defer f.removal.RUnlock()
	var st unix.Statx_t
	f.modes.RLock()
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	f.modes.RUnlock()
	if err != nil {
		return status(err)
	}
	out.AttrValid = validity
	f.fill(&out.Attr, node, &st)
	return fuse.OK
}

// fill translates attributes. Everything is shown as it is on the host, but for the name in the hidden directory, which is not one that anybody should count. The caller
// holds removal.
func (f *FS) fill(a *fuse.Attr, node uint64, st *unix.Statx_t) {
	a.Ino = node
	a.Size = st.Size
	a.Blocks = st.Blocks
	a.Atime, a.Atimensec = uint64(st.Atime.Sec), st.Atime.Nsec
	a.Mtime, a.Mtimensec = uint64(st.Mtime.Sec), st.Mtime.Nsec
	a.Ctime, a.Ctimensec = uint64(st.Ctime.Sec), st.Ctime.Nsec
	a.Mode = uint32(st.Mode)
	a.Nlink = st.Nlink
	a.Uid, a.Gid = st.Uid, st.Gid
	a.Rdev = uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	a.Blksize = st.Blksize
	if a.Nlink > 0 && f.table.isSaved(node) {
		a.Nlink--
	}
}

func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	place, err := f.path(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer place.Close()
	for _, set := range []func(*os.File, *fuse.SetAttrIn) error{f.setOwner, f.setMode, f.setSize, f.setTimes} {
		if err := set(place, in); err != nil {
			return status(err)
		}
	}
	return f.attributes(int(place.Fd()), in.NodeId, out)
}

func (f *FS) setOwner(place *os.File, in *fuse.SetAttrIn) error {
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if !hasUID && !hasGID {
		return nil
	}
	owner := func(id uint32, has bool) int {
		if !has {
			return -1
		}
		return int(id)
	}
	return unix.Fchownat(int(place.Fd()), "", owner(uid, hasUID), owner(gid, hasGID), unix.AT_EMPTY_PATH)
}

func (f *FS) setMode(place *os.File, in *fuse.SetAttrIn) error {
	mode, ok := in.GetMode()
	if !ok {
		return nil
	}
	f.modes.Lock()
	defer f.modes.Unlock()
	return unix.Chmod(procPath(place), mode)
}

func (f *FS) setSize(_ *os.File, in *fuse.SetAttrIn) error {
	size, ok := in.GetSize()
	if !ok {
		return nil
	}
	if fh, ok := in.GetFh(); ok {
		if file := f.files.get(fh); file != nil {
			return unix.Ftruncate(int(file.Fd()), int64(size))
		}
	}
	file, err := f.reach(in.NodeId, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Ftruncate(int(file.Fd()), int64(size))
}

func (f *FS) setTimes(place *os.File, in *fuse.SetAttrIn) error {
	const any = fuse.FATTR_ATIME | fuse.FATTR_MTIME
	if in.Valid&any == 0 {
		return nil
	}
	times := []unix.Timespec{
		timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return unix.UtimesNanoAt(int(place.Fd()), "", times, unix.AT_EMPTY_PATH)
}

func timespec(valid, set, now uint32, seconds uint64, nanoseconds uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		t, _ := unix.TimeToTimespec(time.Now())
		return t
	}
	return unix.Timespec{Sec: int64(seconds), Nsec: int64(nanoseconds)}
}

func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.root, &st); err != nil {
		return status(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize, out.NameLen = uint32(st.Bsize), uint32(st.Frsize), uint32(st.Namelen)
	return fuse.OK
}

// Access is decided by the kernel (default_permissions).
func (f *FS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// attribute runs a call on the path of a node; extended attributes of a place cannot be reached otherwise.
func (f *FS) attribute(node uint64, call func(path string) (int, error)) (uint32, fuse.Status) {
	place, err := f.path(node)
	if err != nil {
		return 0, status(err)
	}
	defer place.Close()
	n, err := call(procPath(place))
	if err != nil {
		return 0, status(err)
	}
	return uint32(n), fuse.OK
}

func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, to []byte) (uint32, fuse.Status) {
	return f.attribute(h.NodeId, func(path string) (int, error) { return unix.Getxattr(path, name, to) })
}

func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, to []byte) (uint32, fuse.Status) {
	return f.attribute(h.NodeId, func(path string) (int, error) { return unix.Listxattr(path, to) })
}

func (f *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	_, s := f.attribute(in.NodeId, func(path string) (int, error) { return 0, unix.Setxattr(path, name, data, int(in.Flags)) })
	return s
}

func (f *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	_, s := f.attribute(h.NodeId, func(path string) (int, error) { return 0, unix.Removexattr(path, name) })
	return s
}
