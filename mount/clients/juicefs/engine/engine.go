package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/juicedata/juicefs/pkg/chunk"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/object"
	"github.com/juicedata/juicefs/pkg/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
)

// Options of an engine.
type Options struct {
	// MemoryLimit is the client's memory limit in bytes; 0: none. Buffers and cache are sized by it.
	MemoryLimit uint64
}

// Engine is a running JuiceFS engine with its metadata session.
type Engine struct {
	// Meta is the metadata client. Opening a file through it follows Recovering.
	Meta meta.Meta
	// VFS is the engine's file layer.
	VFS *vfs.VFS
	// Sid is the metadata session, 0 for a read-only mount, which has none.
	Sid uint64
	// Setting is the volume's setting without secrets.
	Setting meta.Format
	// Budget is how memory is divided.
	Budget Budget

	blob         *storage
	chunk        *chunk.Config
	leave, close sync.Once
}

// Earlier is what a session keeps of the engine that served it before. The zero value is a new session.
type Earlier struct {
	// Sid is the metadata session, 0 if there is none.
	Sid uint64
	// UUID is the file system's, "" if it is not known.
	UUID string
}

// admit refuses any other file system than the session has: the kernel knows its inodes, and the write log its writes. setting is nil where there is none.
func (b Earlier) admit(a Address, setting *meta.Format) error {
	switch {
	case b.UUID == "":
		return nil
	case setting == nil:
		return fmt.Errorf("%w: metadata engine %s holds no file system, but %s is mounted: Secret key \"metaurl\" must not name another one", mount.ErrConfig, a, b.UUID)
	case setting.UUID != b.UUID:
		return fmt.Errorf("%w: metadata engine %s holds file system %s, but %s is mounted: Secret key \"metaurl\" must not name another one",
			mount.ErrConfig, a, setting.UUID, b.UUID)
	}
	return nil
}

// Connection is an engine that is ready to start: connected, formatted if it had to be, with its object storage addressed. It
// has no metadata session yet, so another process may still serve the same one.
type Connection struct {
	spec      *Spec
	before    Earlier
	config    *meta.Config
	client    meta.Meta
	effective meta.Format
	blob      object.ObjectStorage
}

// Connect connects to the volume's metadata engine and formats the volume if it must be. Start will take over what an earlier engine has left.
// It fails within about 10 s if the engine does not answer, and with mount.ErrConfig if it holds another file system than before.
func Connect(ctx context.Context, s *Spec, before Earlier) (c *Connection, err error) {
	c = &Connection{spec: s, before: before, config: s.metaConfig(before.Sid)}
	client, setting, err := connect(ctx, s, c.config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = client.Shutdown()
		}
	}()
	if err := before.admit(s.Address(), setting); err != nil {
		return nil, err
	}
	if setting, err = s.ensure(ctx, client, setting); err != nil {
		return nil, err
	}
	if keys := s.overlooked(*setting); len(keys) > 0 {
		logrus.WithField("keys", keys).Warn("Secret differs from the file system's setting, which holds; the mount options of these names or `juicefs config` change it")
	}
	if c.effective, err = s.effective(*setting); err != nil {
		return nil, err
	}
	if c.blob, err = newStorage(c.effective, s.Env["JFS_RSA_PASSPHRASE"]); err != nil {
		return nil, err
	}
	if before.Sid == 0 {
		// Later an object store that is down must not keep a session from going on with what needs none.
		if err := probeStorage(ctx, c.blob); err != nil {
			object.Shutdown(c.blob)
			return nil, err
		}
	}
	if st := client.Chroot(meta.Background(), s.options.subdir); st != 0 {
		object.Shutdown(c.blob)
		return nil, fmt.Errorf("%w: mount option \"subdir\" %q: %w", mount.ErrConfig, s.options.subdir, st)
	}
	c.client = client
	return c, nil
}

// Earlier is what Start will take over.
func (c *Connection) Earlier() Earlier { return c.before }

// Close lets go of a connection that was not started.
func (c *Connection) Close() error {
	object.Shutdown(c.blob)
	return c.client.Shutdown()
}

// Start opens the metadata session. The connection is used up. A process can start one engine: parts of JuiceFS are global.
func (c *Connection) Start(o Options) (*Engine, error) {
	e := &Engine{Meta: recovering{c.client}, blob: newReplaceable(c.blob), Budget: c.spec.options.budget(o.MemoryLimit)}
	if err := e.start(c.spec, c.config, c.effective); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return e, nil
}

// start joins the parts and opens the metadata session.
func (e *Engine) start(s *Spec, mc *meta.Config, effective meta.Format) error {
	registry := prometheus.NewRegistry()
	registerer := prometheus.WrapRegistererWithPrefix("juicefs_", registry)
	e.chunk = s.chunkConfig(effective, e.Budget)
	store := chunk.NewCachedStore(e.blob, *e.chunk, registerer)
	e.Meta.OnMsg(meta.DeleteSlice, func(args ...interface{}) error {
		return store.Remove(args[0].(uint64), int(args[1].(uint32)))
	})
	e.Meta.OnMsg(meta.CompactChunk, func(args ...interface{}) error {
		return vfs.Compact(*e.chunk, store, args[0].([]meta.Slice), args[1].(uint64))
	})
	e.Meta.OnReload(func(changed *meta.Format) { e.reload(s, *changed, store) })
	if err := e.Meta.NewSession(true); err != nil {
		return fmt.Errorf("open metadata session: %w", classify(s.Address(), err))
	}
	e.Sid = mc.Sid
	e.VFS = vfs.NewVFS(s.vfsConfig(effective, mc, e.chunk), e.Meta, store, registerer, registry)
	e.Meta.InitMetrics(registerer)
	vfs.InitMetrics(registerer)
	e.Setting = effective
	e.Setting.RemoveSecret()
	return nil
}

// reload follows changes that an administrator makes to the volume: limits, and credentials unless the Secret gives them.
func (e *Engine) reload(s *Spec, changed meta.Format, store chunk.ChunkStore) {
	effective, err := s.effective(changed)
	if err != nil {
		return
	}
	store.UpdateLimit(effective.UploadLimit, effective.DownloadLimit)
	blob, err := newStorage(effective, s.Env["JFS_RSA_PASSPHRASE"])
	if err != nil {
		return
	}
	// The old one is not shut down: requests that are under way end with it.
	e.blob.replace(blob)
}

// FlushAll writes everything that was acknowledged to object storage and metadata. With writeback it also waits until the
// staged blocks have been uploaded. It returns early when ctx ends.
func (e *Engine) FlushAll(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- e.VFS.FlushAll("") }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", ctx.Err())
	}
	return e.waitStaged(ctx)
}

// stagedPoll is how often the staging directories are looked at while a writeback client ends: the chunk store tells nobody.
const stagedPoll = 100 * time.Millisecond

func (e *Engine) waitStaged(ctx context.Context) error {
	if !e.chunk.Writeback {
		return nil
	}
	ticker := time.NewTicker(stagedPoll)
	defer ticker.Stop()
	for {
		n, err := e.staged()
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%d staged blocks are not uploaded: %w", n, ctx.Err())
		}
	}
}

// staged counts blocks that are in the cache directory and not yet in object storage.
func (e *Engine) staged() (int, error) {
	n := 0
	for _, dir := range strings.Split(e.chunk.CacheDir, ":") {
		err := filepath.WalkDir(filepath.Join(dir, "rawstaging"), func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.Type().IsRegular() {
				n++
			}
			return err
		})
		if err != nil {
			return n, fmt.Errorf("count staged blocks: %w", err)
		}
	}
	return n, nil
}

// Leave ends the engine's part in the file system. keepSession leaves the metadata session, with its locks and its unlinked open files, to the
// next engine that is opened with its sid; it expires if none comes within five heartbeats. Connections stay open, so that what is
// being read meanwhile is answered or left to the next engine, but does not fail.
func (e *Engine) Leave(keepSession bool) error {
	var err error
	e.leave.Do(func() {
		if keepSession {
			e.Meta.FlushSession()
		} else if e.Sid != 0 {
			err = e.Meta.CloseSession()
		}
	})
	return err
}

// Close is Leave, and ends the connections. No request may be running.
func (e *Engine) Close(keepSession bool) error {
	err := e.Leave(keepSession)
	e.close.Do(func() {
		object.Shutdown(e.blob)
		err = errors.Join(err, e.Meta.Shutdown())
	})
	return err
}
