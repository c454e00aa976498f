package engine

import (
	"syscall"

	"github.com/juicedata/juicefs/pkg/meta"
)

// Recovering is a context of an open that the kernel has granted before, to an earlier process.
type Recovering interface {
	Recovering() bool
}

// recovering is a metadata client that lets a file be opened again whatever has become of it since: unlinked into the trash,
// made immutable or append-only. A file that is open stays usable on every file system; only its first open is checked.
type recovering struct {
	meta.Meta
}

// Open implements meta.Meta.
func (r recovering) Open(ctx meta.Context, inode meta.Ino, flags uint32, attr *meta.Attr) syscall.Errno {
	if again, ok := ctx.(Recovering); !ok || !again.Recovering() {
		return r.Meta.Open(ctx, inode, flags, attr)
	}
	if st := r.GetAttr(ctx, inode, attr); st != 0 {
		return st
	}
	plain := *attr
	plain.Full = true
	if plain.Parent > meta.TrashInode {
		plain.Parent = 0
	}
	plain.Flags = 0
	return r.Meta.Open(ctx, inode, flags, &plain)
}
