package passthrough

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// How long the kernel may believe what it has been told, in seconds: as long as other clients' changes may stay unseen.
const validity = 1

// keeper is where the file system keeps what must survive this process.
type keeper interface {
	Get(key string) ([]byte, bool)
	Put(key string, value []byte) error
	Memory() []byte
}

// FS serves a directory.
type FS struct {
	fuse.RawFileSystem
	root   int // O_PATH; open as long as the process
	device uint64
	inode  uint64
	keep   keeper
	table  *table
	hidden hidden
	files  handles
	gone   removed
	full   sync.Once
	// removal is held by whoever takes a name away or changes one, from looking what has it until the table and the directory agree again. Those who open or look up hold
	// it for reading, so that what they have found is still there when it is noted.
	removal  sync.RWMutex
	modes    modes
	backings backings
}

// New opens the directory that a volume describes. The caller serves it with package client.
func New(v mount.Volume, keep keeper) (*FS, error) {
	path := v.Config["path"]
	if path == "" {
		return nil, fmt.Errorf("volume attribute path is missing: %w", mount.ErrConfig)
	}
	for _, option := range v.Options {
		if option != "ro" && option != "rw" {
			return nil, fmt.Errorf("mount option %q is unknown to a passthrough volume: %w", option, mount.ErrConfig)
		}
	}
	root, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("directory %s: %w: %w", path, err, mount.ErrConfig)
	case err != nil:
		return nil, fmt.Errorf("directory %s: %w: %w", path, err, mount.ErrUnavailable)
	}
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		unix.Close(root)
		return nil, fmt.Errorf("directory %s: %w: %w", path, err, mount.ErrUnavailable)
	}
	return &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), root: root, device: st.Dev, inode: st.Ino, keep: keep}, nil
}

func (f *FS) String() string { return string(mount.Passthrough) }

// Init takes up what an earlier client of the session has left.
func (f *FS) Init(server *fuse.Server) {
	// Modes come from the kernel with the umask of the caller applied.
	unix.Umask(0)
	f.table = openTable(f.keep.Memory())
	f.files.init(f.epoch())
	f.hidden.init(f)
	f.table.settle(f.isAt)
	f.restoreMode()
	f.backings.init(f.keep, f.table)
	f.hidden.removeOrphans()
	if server != nil {
		f.watchLeftovers(server, f.table.saved())
	}
}

// epoch counts the clients of the session, so that their file handles differ.
func (f *FS) epoch() uint32 {
	const key = "passthrough/epoch"
	var n uint32
	if b, ok := f.keep.Get(key); ok && len(b) == 4 {
		n = binary.NativeEndian.Uint32(b)
	}
	n++
	if err := f.keep.Put(key, binary.NativeEndian.AppendUint32(nil, n)); err != nil {
		log.Printf("count the clients of this session: %v", err)
	}
	return n
}

// beneath keeps every path inside of the directory and on its file system, whatever somebody else makes of the directory meanwhile.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// open opens a node. The flags never create or truncate. The caller does not hold removal.
func (f *FS) open(node uint64, flags int) (*os.File, error) {
	return f.settled(func() (*os.File, error) { return f.find(node, flags) })
}

// settled repeats a call that has used a wrong path, while no name is being changed: one may have been changed between looking the path up and using it.
func (f *FS) settled(call func() (*os.File, error)) (*os.File, error) {
	file, err := call()
	if err != unix.ESTALE {
		return file, err
	}
	f.removal.RLock()
	defer f.removal.RUnlock()
	return call()
}

// find is open for callers that hold removal, or can do without the file.
func (f *FS) find(node uint64, flags int) (*os.File, error) {
	if file, found, err := f.gone.open(node, flags); found {
		return file, err
	}
	path, err := f.table.path(node)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat2(f.root, path, &unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: beneath})
	if err != nil {
		if err == unix.ENOENT || err == unix.ELOOP || err == unix.ENOTDIR {
			err = unix.ESTALE
		}
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		file.Close()
		return nil, err
	}
	if f.nodeID(st.Ino) != node || st.Dev != f.device {
		file.Close()
		return nil, unix.ESTALE
	}
	return file, nil
}

// path opens a node as a place only.
func (f *FS) path(node uint64) (*os.File, error) { return f.open(node, unix.O_PATH) }

func (f *FS) nodeID(inode uint64) uint64 {
	if inode == f.inode {
		return rootID
	}
	return inode
}

// entry answers with the object at a name, and counts that the kernel knows it. The caller holds removal.
func (f *FS) entry(dir int, parent uint64, name string, out *fuse.EntryOut) fuse.Status {
	if f.hidden.hides(parent, name) {
		return fuse.ENOENT
	}
	var st unix.Statx_t
	f.modes.RLock()
	err := unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	f.modes.RUnlock()
	if err != nil {
		return status(err)
	}
	if unix.Mkdev(st.Dev_major, st.Dev_minor) != f.device {
		return fuse.Status(unix.EXDEV)
	}
	node := f.nodeID(st.Ino)
	if err := f.table.know(node, parent, name); err != nil {
		f.full.Do(func() { log.Printf("%v: nodes that are not in it are refused", err) })
		return status(err)
	}
	out.NodeId = node
	// An inode's number may be used again while the kernel still knows the old one; its time of birth tells them apart.
	out.Generation = uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec)
	out.EntryValid, out.AttrValid = validity, validity
	f.fill(&out.Attr, node, &st)
	return fuse.OK
}

// status translates an error of a system call into FUSE's.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if errors.Is(err, errTableFull) {
		return fuse.Status(unix.ENFILE)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	if errors.Is(err, os.ErrClosed) {
		return fuse.EBADF
	}
	return fuse.EIO
}

// in runs a call with a directory open. The caller holds removal.
func (f *FS) in(node uint64, call func(dir int) error) fuse.Status {
	dir, err := f.find(node, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	defer dir.Close()
	return status(call(int(dir.Fd())))
}
