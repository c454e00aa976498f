package filesystem

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// noXattr is the answer if extended attributes are off, which is JuiceFS's default: the kernel then stops asking, and a write does
// not cost a look at security.capability.
const noXattr = fuse.ENOSYS

// GetXAttr implements fuse.RawFileSystem.
func (fs *FileSystem) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !fs.options.Features.Xattr {
		return 0, noXattr
	}
	value, err := fs.vfs.GetXattr(newRequest(cancel, h), Ino(h.NodeId), name, uint32(len(dest)))
	if err != 0 {
		return uint32(len(value)), fuse.Status(err)
	}
	copy(dest, value)
	return uint32(len(value)), fuse.OK
}

// ListXAttr implements fuse.RawFileSystem.
func (fs *FileSystem) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if !fs.options.Features.Xattr {
		return 0, noXattr
	}
	names, err := fs.vfs.ListXattr(newRequest(cancel, h), Ino(h.NodeId), len(dest))
	if err != 0 {
		return uint32(len(names)), fuse.Status(err)
	}
	copy(dest, names)
	return uint32(len(names)), fuse.OK
}

// SetXAttr implements fuse.RawFileSystem.
func (fs *FileSystem) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if !fs.options.Features.Xattr {
		return noXattr
	}
	return fuse.Status(fs.vfs.SetXattr(newRequest(cancel, &in.InHeader), Ino(in.NodeId), name, data, in.Flags))
}

// RemoveXAttr implements fuse.RawFileSystem.
func (fs *FileSystem) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if !fs.options.Features.Xattr {
		return noXattr
	}
	return fuse.Status(fs.vfs.RemoveXattr(newRequest(cancel, h), Ino(h.NodeId), name))
}

// Ioctl implements fuse.RawFileSystem: the flags that chattr and lsattr use.
func (fs *FileSystem) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, _ *fuse.IoctlOut, outbuf []byte) fuse.Status {
	if !fs.options.Features.Ioctl {
		return fuse.Status(errNoTTY)
	}
	return fuse.Status(fs.vfs.Ioctl(newRequest(cancel, &in.InHeader), Ino(in.NodeId), in.Cmd, in.Arg, inbuf, outbuf))
}
