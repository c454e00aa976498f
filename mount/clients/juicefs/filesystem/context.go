package filesystem

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/vfs"
)

// request is a FUSE request's context as JuiceFS wants it. Permissions are not checked here: the mount has
// default_permissions, so the kernel has done it, supplementary groups included.
type request struct {
	context.Context
	caller     fuse.Caller
	begin      time.Time
	interrupt  <-chan struct{}
	canceled   *atomic.Bool
	recovering bool
}

var _ vfs.LogContext = (*request)(nil)

func newRequest(interrupt <-chan struct{}, h *fuse.InHeader) *request {
	return &request{
		Context: context.Background(), caller: h.Caller, begin: time.Now(), interrupt: interrupt, canceled: new(atomic.Bool),
	}
}

// own is the context of what the file system does by itself.
func own(recovering bool) *request {
	r := newRequest(nil, &fuse.InHeader{})
	r.recovering = recovering
	return r
}

func (r *request) Uid() uint32             { return r.caller.Uid } //nolint:staticcheck // meta.Context names it so
func (r *request) Gid() uint32             { return r.caller.Gid } //nolint:staticcheck // meta.Context names it so
func (r *request) Gids() []uint32          { return []uint32{r.caller.Gid} }
func (r *request) Pid() uint32             { return r.caller.Pid }
func (r *request) CheckPermission() bool   { return false }
func (r *request) Duration() time.Duration { return time.Since(r.begin) }
func (r *request) Cancel()                 { r.canceled.Store(true) }
func (r *request) Err() error              { return syscall.EINTR }
func (r *request) Recovering() bool        { return r.recovering }

// interruptAfter is how long a request runs before an interrupt counts. Go programs interrupt their threads every few
// milliseconds; giving up at once would make them retry for ever.
const interruptAfter = time.Second

// Canceled tells whether the caller wants the request to end.
func (r *request) Canceled() bool {
	if r.Duration() < interruptAfter {
		return false
	}
	select {
	case <-r.interrupt:
		return true
	default:
		return r.canceled.Load()
	}
}

// WithValue implements meta.Context.
func (r *request) WithValue(k, v interface{}) meta.Context {
	c := *r
	c.Context = context.WithValue(r.Context, k, v)
	return &c
}
