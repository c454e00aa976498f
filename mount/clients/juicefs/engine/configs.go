package engine

import (
	"os"

	"github.com/juicedata/juicefs/pkg/chunk"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/version"
	"github.com/juicedata/juicefs/pkg/vfs"
)

// metaConfig is the metadata client's configuration. sid 0 makes a new session.
func (s *Spec) metaConfig(sid uint64) *meta.Config {
	conf := meta.DefaultConf()
	conf.Retries = s.options.ioRetries
	conf.MaxDeletes = s.options.maxDeletes
	conf.SkipDirNlink = s.options.skipDirNlink
	conf.SkipDirMtime = s.options.skipDirMtime
	conf.ReadOnly = s.ReadOnly
	conf.NoBGJob = s.options.noBGJob
	conf.OpenCache = s.options.openCache
	conf.OpenCacheLimit = s.options.openCacheLimit
	conf.Heartbeat = s.options.heartbeat
	conf.MountPoint = "sidemount"
	conf.Subdir = s.options.subdir
	conf.AtimeMode = s.options.atimeMode
	conf.SortDir = s.options.sortDir
	conf.FastStatfs = s.options.fastStatfs
	conf.Sid = sid
	return conf
}

// chunkConfig is the chunk store's configuration for a volume with this setting.
func (s *Spec) chunkConfig(f meta.Format, b Budget) *chunk.Config {
	o := s.options
	conf := &chunk.Config{
		BlockSize: f.BlockSize << 10, Compress: f.Compression, HashPrefix: f.HashPrefix,
		GetTimeout: o.getTimeout, PutTimeout: o.putTimeout, MaxUpload: o.maxUploads, MaxStageWrite: o.maxStageWrite,
		MaxRetries: o.ioRetries, Writeback: o.writeback, Prefetch: o.prefetch, BufferSize: b.Buffer,
		UploadLimit: f.UploadLimit * 1e6 / 8, DownloadLimit: f.DownloadLimit * 1e6 / 8,
		UploadDelay: o.uploadDelay, UploadHours: o.uploadHours,
		CacheDir: o.cacheDir, CacheSize: b.Cache, CacheItems: o.cacheItems, FreeSpace: float32(o.freeSpace),
		CacheMode: os.FileMode(o.cacheMode), CacheFullBlock: !o.cachePartial, CacheLargeWrite: o.cacheLarge,
		CacheChecksum: o.cacheChecksum, CacheEviction: o.cacheEviction, CacheScanInterval: o.cacheScan,
		CacheExpire: o.cacheExpire, OSCache: true, AutoCreate: true, Readahead: int(o.maxReadahead),
	}
	if conf.Readahead == 0 {
		conf.Readahead = 8 * conf.BlockSize
	}
	conf.SelfCheck(f.UUID)
	return conf
}

// vfsConfig is vfs's configuration. FuseOpts must be there: without it vfs lets a handle that is open for writing only be read.
func (s *Spec) vfsConfig(f meta.Format, mc *meta.Config, cc *chunk.Config) *vfs.Config {
	f.RemoveSecret() // vfs shows it to whoever reads the file .config
	return &vfs.Config{
		Meta: mc, Chunk: cc, Format: f, Version: version.Version(), Port: &vfs.Port{}, FuseOpts: &vfs.FuseOptions{},
		Security:    &vfs.SecurityConfig{EnableCap: s.options.enableCap, EnableSELinux: s.options.enableSELinux},
		AttrTimeout: s.options.attrCache, EntryTimeout: s.options.entryCache, DirEntryTimeout: s.options.dirEntryCache,
		NegEntryTimeout: s.options.negativeEntryCache, ReaddirCache: s.options.readdirCache,
		PrefixInternal: s.options.prefixInternal,
		UMask:          s.options.umask,
		Pid:            os.Getpid(), PPid: os.Getppid(), Subdir: s.options.subdir,
	}
}
