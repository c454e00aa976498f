package filesystem

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/meta"
)

// freshFor is how long a directory's listing may give out attributes too; later the kernel asks for each name again.
const freshFor = time.Second

// entry is a name in a directory stream. Its cookie is the offset after it, made from the name alone, so that every process gives
// out the same one.
type entry struct {
	cookie uint64
	*meta.Entry
}

// stream is an open directory.
type stream struct {
	inode Ino

	mu      sync.Mutex // guards all below
	read    time.Time
	entries []entry         // ordered by cookie
	dirty   map[string]bool // names that changed since: true if the name is gone
}

// streams are the open directories of this process. A stream that is unknown begins anew at the offset that is asked for.
type streams struct {
	mu      sync.Mutex // guards all below
	next    uint64
	byFh    map[uint64]*stream
	byInode map[Ino]map[*stream]struct{}
}

func newStreams() *streams {
	// A number of an earlier process must not be given out again while the kernel still uses it.
	return &streams{
		next: uint64(time.Now().UnixNano()), byFh: make(map[uint64]*stream), byInode: make(map[Ino]map[*stream]struct{}),
	}
}

func (s *streams) open(inode Ino) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.insert(s.next, inode)
	return s.next
}

func (s *streams) insert(number uint64, inode Ino) *stream {
	d := &stream{inode: inode}
	s.byFh[number] = d
	if s.byInode[inode] == nil {
		s.byInode[inode] = make(map[*stream]struct{})
	}
	s.byInode[inode][d] = struct{}{}
	return d
}

func (s *streams) get(number uint64, inode Ino) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.byFh[number]; d != nil {
		return d
	}
	return s.insert(number, inode)
}

func (s *streams) close(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.byFh[number]
	if d == nil {
		return
	}
	delete(s.byFh, number)
	delete(s.byInode[d.inode], d)
	if len(s.byInode[d.inode]) == 0 {
		delete(s.byInode, d.inode)
	}
}

// changed tells open streams that a name now means another node.
func (s *streams) changed(parent Ino, name string) { s.mark(parent, name, false) }

// gone tells open streams that a name is no more.
func (s *streams) gone(parent Ino, name string) { s.mark(parent, name, true) }

func (s *streams) mark(parent Ino, name string, gone bool) {
	s.mu.Lock()
	open := make([]*stream, 0, len(s.byInode[parent]))
	for d := range s.byInode[parent] {
		open = append(open, d)
	}
	s.mu.Unlock()
	for _, d := range open {
		d.mu.Lock()
		if d.dirty != nil {
			d.dirty[name] = gone
		}
		d.mu.Unlock()
	}
}

// Cookies of the two names that come first. All others are larger.
const (
	cookieSelf   = 1
	cookieParent = 2
	firstCookie  = 16
)

// cookieOf makes a cookie of 62 bits: the kernel's offsets are signed.
func cookieOf(name string) uint64 {
	switch name {
	case ".":
		return cookieSelf
	case "..":
		return cookieParent
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64()%(math.MaxInt64/2) + firstCookie
}

// arrange orders a listing by cookie. Two names with the same hash get neighbouring cookies, in the order of the names.
func arrange(list []*meta.Entry) []entry {
	entries := make([]entry, 0, len(list))
	for _, e := range list {
		entries = append(entries, entry{cookieOf(string(e.Name)), e})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if c := cmp.Compare(a.cookie, b.cookie); c != 0 {
			return c
		}
		return cmp.Compare(string(a.Name), string(b.Name))
	})
	for i := 1; i < len(entries); i++ {
		if entries[i].cookie <= entries[i-1].cookie {
			entries[i].cookie = entries[i-1].cookie + 1
		}
	}
	return entries
}

// list returns the entries after an offset. It reads the directory when the stream begins, or begins again.
func (fs *FileSystem) list(ctx *request, d *stream, offset uint64, plus bool) ([]entry, errno) {
	if d.dirty == nil || offset == 0 {
		var want uint8
		if plus {
			want = 1
		}
		// From here on changes are noted; the listing may or may not show them.
		d.dirty = make(map[string]bool)
		d.read = time.Now()
		var listing []*meta.Entry
		if err := fs.meta.Readdir(ctx, d.inode, want, &listing); err != 0 {
			d.dirty = nil
			return nil, err
		}
		hideRoot(d.inode, listing)
		d.entries = arrange(listing)
	}
	i := sort.Search(len(d.entries), func(i int) bool { return d.entries[i].cookie > offset })
	return d.entries[i:], 0
}

// hideRoot gives "." and ".." of the mount's root the root's own number: with subdir the directory has another one inside the volume.
func hideRoot(inode Ino, listing []*meta.Entry) {
	for _, e := range listing {
		if inode == meta.RootInode && (string(e.Name) == "." || string(e.Name) == "..") {
			e.Inode = inode
		}
	}
}

// OpenDir implements fuse.RawFileSystem.
func (fs *FileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.Fh = fs.streams.open(Ino(in.NodeId))
	if fs.vfs.Conf.ReaddirCache {
		out.OpenFlags |= fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// ReadDir implements fuse.RawFileSystem.
func (fs *FileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	d := fs.streams.get(in.Fh, Ino(in.NodeId))
	d.mu.Lock()
	defer d.mu.Unlock()
	entries, err := fs.list(newRequest(cancel, &in.InHeader), d, in.Offset, false)
	for _, e := range entries {
		if d.dirty[string(e.Name)] {
			continue
		}
		if !out.AddDirEntry(e.dirEntry()) {
			break
		}
	}
	return fuse.Status(err)
}

// ReadDirPlus implements fuse.RawFileSystem.
func (fs *FileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	d := fs.streams.get(in.Fh, Ino(in.NodeId))
	d.mu.Lock()
	defer d.mu.Unlock()
	entries, err := fs.list(ctx, d, in.Offset, true)
	ctx.begin = d.read
	fresh := time.Since(d.read) < freshFor
	for _, e := range entries {
		gone, changed := d.dirty[string(e.Name)]
		if gone {
			continue
		}
		slot := out.AddDirLookupEntry(e.dirEntry())
		if slot == nil {
			break
		}
		// Node 0 means: here is a name, ask for it if you need more.
		if fresh && !changed && e.Attr.Full {
			attr := *e.Attr
			fs.putEntry(ctx, &meta.Entry{Inode: e.Inode, Name: e.Name, Attr: &attr}, slot)
		}
	}
	return fuse.Status(err)
}

func (e entry) dirEntry() fuse.DirEntry {
	return fuse.DirEntry{Name: string(e.Name), Ino: uint64(e.Inode), Mode: e.Attr.SMode(), Off: e.cookie}
}

// ReleaseDir implements fuse.RawFileSystem.
func (fs *FileSystem) ReleaseDir(in *fuse.ReleaseIn) { fs.streams.close(in.Fh) }

// FsyncDir implements fuse.RawFileSystem. Metadata is on stable storage when a request is answered.
func (fs *FileSystem) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }
