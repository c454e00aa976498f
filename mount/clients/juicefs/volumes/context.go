package volumes

import (
	"context"
	"sync/atomic"

	"github.com/juicedata/juicefs/pkg/meta"
)

// request is a command's context as JuiceFS wants it, of user 0. Loops over many entries see that the caller has gone; single steps in the
// metadata engine are not interrupted: they are short, and whether an interrupted one took effect nobody could tell.
type request struct {
	context.Context // never ends
	caller          context.Context
	canceled        *atomic.Bool
}

var _ meta.Context = (*request)(nil)

func newRequest(caller context.Context) meta.Context {
	return &request{Context: context.WithoutCancel(caller), caller: caller, canceled: new(atomic.Bool)}
}

// callerOf is the context that ends with the caller's patience.
func callerOf(ctx context.Context) context.Context {
	if r, ok := ctx.(*request); ok {
		return r.caller
	}
	return ctx
}

func (*request) Uid() uint32           { return 0 } //nolint:staticcheck // meta.Context names it so
func (*request) Gid() uint32           { return 0 } //nolint:staticcheck // meta.Context names it so
func (*request) Gids() []uint32        { return []uint32{0} }
func (*request) Pid() uint32           { return 0 }
func (*request) CheckPermission() bool { return true }
func (r *request) Cancel()             { r.canceled.Store(true) }
func (r *request) Canceled() bool      { return r.canceled.Load() || r.caller.Err() != nil }

// WithValue implements meta.Context.
func (r *request) WithValue(k, v any) meta.Context {
	c := *r
	c.Context = context.WithValue(r.Context, k, v)
	return &c
}
