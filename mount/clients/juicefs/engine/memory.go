package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

const mib = uint64(1 << 20)

// MemoryLimit is the smallest memory limit of the cgroups that a process is in, in bytes; 0 if there is none. root is the
// machine's root directory; it is read as cgroup v2 and v1 lay it out, also from inside a cgroup namespace, where the
// process's own cgroup is the root.
func MemoryLimit(root fs.FS) (uint64, error) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory limit: %w", err)
	}
	limit := uint64(math.MaxUint64)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		_, rest, _ := strings.Cut(line, ":")
		controllers, own, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		switch {
		case controllers == "":
			limit = min(limit, limitOf(root, "sys/fs/cgroup", own, "memory.max"))
		case hasController(controllers, "memory"):
			limit = min(limit, limitOf(root, "sys/fs/cgroup/memory", own, "memory.limit_in_bytes"))
		}
	}
	if limit >= 1<<62 { // v1 writes "no limit" as the largest page-aligned number
		return 0, nil
	}
	return limit, nil
}

// limitOf is the smallest limit from the cgroup up to the mount's root.
func limitOf(root fs.FS, mount, own, file string) uint64 {
	limit := uint64(math.MaxUint64)
	for dir := path.Clean("/" + own); ; dir = path.Dir(dir) {
		text, err := fs.ReadFile(root, path.Join(mount, dir, file))
		if err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
				limit = min(limit, n)
			}
		}
		if dir == "/" {
			return limit
		}
	}
}

func hasController(list, name string) bool {
	for _, c := range strings.Split(list, ",") {
		if c == name {
			return true
		}
	}
	return false
}

// Budget is how the client divides its memory.
type Budget struct {
	// Buffer is JuiceFS's buffer-size: it slows writers down above it and stops them at twice of it.
	Buffer uint64
	// Cache is the block cache, if it is in memory.
	Cache uint64
	// Heap is the limit for Go's garbage collector; 0 leaves it alone.
	Heap uint64
	// Reduced says that the options asked for more than the limit allows.
	Reduced bool
}

const (
	// baseMemory is what the client needs besides buffers and cache: code, metadata, request buffers and the write log.
	baseMemory    = 160 * mib
	defaultBuffer = 300 * mib
	minBuffer     = 32 * mib // JuiceFS's own floor
	// defaultMemoryCache is used without a memory limit.
	defaultMemoryCache = 256 * mib
)

// budget divides a memory limit (0: none). JuiceFS's defaults, 300 MiB of buffers that may grow to twice of it and a cache of
// 100 GiB, are meant for a machine of its own and get a small sidecar killed. With a limit, twice the buffer plus the cache
// stay within what is left after the base: the buffer takes a third, a cache in memory a quarter.
func (o options) budget(limit uint64) Budget {
	b := Budget{Buffer: o.bufferSize, Cache: o.cacheSize}
	if b.Buffer == 0 {
		b.Buffer = defaultBuffer
	}
	inMemory := o.cacheDir == "memory"
	if !o.cacheSizeSet {
		b.Cache = 100 << 30
		if inMemory {
			b.Cache = defaultMemoryCache
		}
	}
	if limit == 0 {
		return b
	}
	free := max(limit, baseMemory+3*minBuffer) - baseMemory
	if most := max(free/3, minBuffer); b.Buffer > most {
		b.Reduced = o.bufferSize > most
		b.Buffer = most
	}
	if most := free / 4; inMemory && b.Cache > most {
		b.Reduced = b.Reduced || o.cacheSizeSet && o.cacheSize > most
		b.Cache = most
	}
	b.Heap = limit / 10 * 8
	return b
}
