package filesystem

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/vfs"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount/client"
	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
)

// Ino is an inode number, which is also the kernel's node id.
type Ino = meta.Ino

// Session is what the file system needs of the mount session: memory and small values that outlive the process.
type Session interface {
	// Get returns a value that this or an earlier process of the session has Put.
	Get(key string) ([]byte, bool)
	// Put keeps a value; an empty one removes the key.
	Put(key string, value []byte) error
	// Memory is shared memory that is zero when the session begins.
	Memory() []byte
}

// Options of a file system.
type Options struct {
	// Session outlives the process. Its memory is used from Init on; values may be read before.
	Session Session
	// Open opens the engine, which takes over what an earlier one has left.
	Open func(ctx context.Context, before engine.Earlier) (*engine.Engine, error)
	// Fatal is told when Init cannot go on: there is nobody to return the error to. It must end the process.
	Fatal func(error)
	// Log gets what an administrator should know.
	Log *logrus.Entry
	// Features are the optional request types.
	Features engine.Features
	// LogSize is the write log's size in bytes. When it is full, writers wait for a flush. Default 32 MiB.
	LogSize int
}

const (
	defaultLogSize = 32 << 20
	// flushAge is how old a logged write may become before its inode is flushed, which is JuiceFS's own age for its buffers.
	flushAge = 5 * time.Second
	// startTimeout bounds opening the engine and taking over a dead process's state.
	startTimeout = time.Minute
)

// FileSystem is a RawFileSystem over a JuiceFS engine.
type FileSystem struct {
	// Forget needs nothing, since nodes are the engine's inodes. Lseek and Statx answer ENOSYS, after which the kernel does without them (fs/fuse/file.c fuse_lseek,
	// fs/fuse/dir.c fuse_do_statx): the engine knows no holes, and no time of birth.
	fuse.RawFileSystem

	options Options
	log     *logrus.Entry

	engine   *engine.Engine
	vfs      *vfs.VFS
	meta     meta.Meta
	writes   *client.WriteLog
	handles  *handles
	locks    *locks
	streams  *streams
	removals removals
	room     sync.Mutex // one writer at a time makes room in the write log

	stop    context.CancelFunc
	flusher sync.WaitGroup
}

var _ fuse.RawFileSystem = (*FileSystem)(nil)

// New returns a file system that opens its engine in Init.
func New(o Options) (*FileSystem, error) {
	if o.Session == nil || o.Open == nil || o.Fatal == nil {
		return nil, errors.New("file system needs a session, an engine to open and somebody to tell about failure")
	}
	if o.LogSize == 0 {
		o.LogSize = defaultLogSize
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	return &FileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		options:       o,
		log:           o.Log,
		locks:         newLocks(),
		streams:       newStreams(),
	}, nil
}

// String implements fuse.RawFileSystem.
func (*FileSystem) String() string { return "juicefs" }

// Init opens the engine and takes over what an earlier process of the session has left. It runs before the first request.
func (fs *FileSystem) Init(server *fuse.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := fs.start(ctx); err != nil {
		fs.options.Fatal(err)
		return
	}
	fs.vfs.InvalidateEntry = func(parent Ino, name string) errno {
		return errno(server.EntryNotify(uint64(parent), name))
	}
}

func (fs *FileSystem) start(ctx context.Context) error {
	table, log, err := fs.openMemory()
	if err != nil {
		return err
	}
	before := fs.Earlier()
	e, err := fs.options.Open(ctx, before)
	if err != nil {
		return err
	}
	fs.engine, fs.vfs, fs.meta, fs.writes = e, e.VFS, e.Meta, log
	fs.handles = newHandles(table)
	if err := fs.remember(e, before); err != nil {
		return err
	}
	if err := fs.resume(ctx); err != nil {
		return fmt.Errorf("take over the session: %w", err)
	}
	ctx, fs.stop = context.WithCancel(context.Background())
	fs.flusher.Go(func() { fs.flushOld(ctx) })
	return nil
}

// Replayed is how many bytes of an earlier process's writes were written again.
func (fs *FileSystem) Replayed() uint64 { return fs.writes.Replayed() }

// Shutdown writes everything that was acknowledged to stable storage and leaves the file system. No request that changes something may be
// running; others may, until the process ends. If files are open, the metadata session stays for a successor; else it is closed.
func (fs *FileSystem) Shutdown(ctx context.Context) error {
	if fs.engine == nil {
		return nil
	}
	fs.stop()
	fs.flusher.Wait()
	covered := fs.writes.BeginAll()
	if err := fs.engine.FlushAll(ctx); err != nil {
		return err
	}
	for _, f := range covered {
		f.Done()
	}
	keep := fs.handles.count() > 0
	if !keep {
		if err := fs.storeSid(0); err != nil {
			return err
		}
	}
	return fs.engine.Leave(keep)
}
