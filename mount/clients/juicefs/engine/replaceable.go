package engine

import (
	"io"
	"sync/atomic"

	"github.com/juicedata/juicefs/pkg/object"
)

// storage is an object storage whose credentials may be replaced while it is in use.
type storage struct {
	current atomic.Pointer[object.ObjectStorage]
}

var _ object.ObjectStorage = (*storage)(nil)

func newReplaceable(s object.ObjectStorage) *storage {
	r := &storage{}
	r.current.Store(&s)
	return r
}

func (s *storage) now() object.ObjectStorage         { return *s.current.Load() }
func (s *storage) replace(with object.ObjectStorage) { s.current.Store(&with) }

// Shutdown implements object.Shutdownable.
func (s *storage) Shutdown() { object.Shutdown(s.now()) }

func (s *storage) String() string        { return s.now().String() }
func (s *storage) Limits() object.Limits { return s.now().Limits() }
func (s *storage) Create() error         { return s.now().Create() }

func (s *storage) Get(key string, off, limit int64, g ...object.AttrGetter) (io.ReadCloser, error) {
	return s.now().Get(key, off, limit, g...)
}

func (s *storage) Put(key string, in io.Reader, g ...object.AttrGetter) error {
	return s.now().Put(key, in, g...)
}

func (s *storage) Copy(dst, src string) error { return s.now().Copy(dst, src) }

func (s *storage) Delete(key string, g ...object.AttrGetter) error { return s.now().Delete(key, g...) }

func (s *storage) Head(key string) (object.Object, error) { return s.now().Head(key) }

func (s *storage) List(prefix, after, token, delimiter string, limit int64, follow bool) ([]object.Object, bool, string, error) {
	return s.now().List(prefix, after, token, delimiter, limit, follow)
}

func (s *storage) ListAll(prefix, marker string, follow bool) (<-chan object.Object, error) {
	return s.now().ListAll(prefix, marker, follow)
}

func (s *storage) CreateMultipartUpload(key string) (*object.MultipartUpload, error) {
	return s.now().CreateMultipartUpload(key)
}

func (s *storage) UploadPart(key, id string, num int, body []byte) (*object.Part, error) {
	return s.now().UploadPart(key, id, num, body)
}

func (s *storage) UploadPartCopy(key, id string, num int, src string, off, size int64) (*object.Part, error) {
	return s.now().UploadPartCopy(key, id, num, src, off, size)
}

func (s *storage) AbortUpload(key, id string) { s.now().AbortUpload(key, id) }

func (s *storage) CompleteUpload(key, id string, parts []*object.Part) error {
	return s.now().CompleteUpload(key, id, parts)
}

func (s *storage) ListUploads(marker string) ([]*object.PendingPart, string, error) {
	return s.now().ListUploads(marker)
}
