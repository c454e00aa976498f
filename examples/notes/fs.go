package main

import (
	"encoding/binary"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// What makes the file system survive its process: a node's number is that of its note, so the next process understands it; an open file is nothing but its node, so
// there are no handles to know; and the notes lie in the session's memory.
const (
	rootID   = 1
	firstID  = 2
	count    = 16
	capacity = 64 << 10
	slotSize = 8 + capacity // the length, and the text
)

type fs struct {
	fuse.RawFileSystem // ENOSYS for what is not here
	memory             []byte
}

func newFS(v mount.Volume, memory []byte) (*fs, error) {
	if len(v.Options) > 0 {
		return nil, fmt.Errorf("mount options %v are unknown to notes: %w", v.Options, mount.ErrConfig)
	}
	return &fs{fuse.NewDefaultRawFileSystem(), memory}, nil
}

// note is what a node holds, nil if it is none.
func (f *fs) note(node uint64) []byte {
	if node < firstID || node >= firstID+count {
		return nil
	}
	return f.memory[(node-firstID)*slotSize:][:slotSize]
}

func name(node uint64) string { return fmt.Sprintf("note-%02d", node-firstID+1) }

func (f *fs) fill(node uint64, out *fuse.Attr) {
	*out = fuse.Attr{Ino: node, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	if slot := f.note(node); slot != nil {
		*out = fuse.Attr{Ino: node, Mode: unix.S_IFREG | 0o666, Nlink: 1, Size: binary.NativeEndian.Uint64(slot)}
	}
}

func (f *fs) Lookup(_ <-chan struct{}, h *fuse.InHeader, wanted string, out *fuse.EntryOut) fuse.Status {
	for node := uint64(firstID); h.NodeId == rootID && node < firstID+count; node++ {
		if name(node) == wanted {
			out.NodeId = node
			f.fill(node, &out.Attr)
			return fuse.OK
		}
	}
	return fuse.ENOENT
}

func (f *fs) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.fill(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *fs) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	slot := f.note(in.NodeId)
	if size, ok := in.GetSize(); ok && slot != nil {
		if size > capacity {
			return fuse.Status(unix.EFBIG)
		}
		clear(slot[8+min(size, binary.NativeEndian.Uint64(slot)):])
		binary.NativeEndian.PutUint64(slot, size)
	}
	f.fill(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *fs) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status    { return fuse.OK }
func (f *fs) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (f *fs) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	slot := f.note(in.NodeId)
	size := binary.NativeEndian.Uint64(slot)
	from := min(in.Offset, size)
	return fuse.ReadResultData(slot[8+from : 8+min(from+uint64(in.Size), size)]), fuse.OK
}

// Write may be executed twice, if the process dies before its answer: that is harmless, as it is for most requests. Those that change names would be kept from it by
// package client.
func (f *fs) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	slot := f.note(in.NodeId)
	end := in.Offset + uint64(len(data))
	if end > capacity {
		return 0, fuse.Status(unix.ENOSPC)
	}
	copy(slot[8+in.Offset:], data)
	binary.NativeEndian.PutUint64(slot, max(end, binary.NativeEndian.Uint64(slot)))
	return uint32(len(data)), fuse.OK
}

// Fsync has nothing to do: as long as the session lives, its memory does.
func (f *fs) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// ReadDir goes on at the offset that the kernel gives, whoever has read what is before it.
func (f *fs) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for node := firstID + in.Offset; node < firstID+count; node++ {
		if !out.AddDirEntry(fuse.DirEntry{Mode: unix.S_IFREG, Name: name(node), Ino: node, Off: node - firstID + 1}) {
			break
		}
	}
	return fuse.OK
}

// ReadDirPlus may leave attributes out: the kernel asks for them when it needs them.
func (f *fs) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for node := firstID + in.Offset; node < firstID+count; node++ {
		if out.AddDirLookupEntry(fuse.DirEntry{Mode: unix.S_IFREG, Name: name(node), Ino: node, Off: node - firstID + 1}) == nil {
			break
		}
	}
	return fuse.OK
}

// StatFs is also how the broker finds out that the client answers.
func (f *fs) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: 4096, Frsize: 4096, Blocks: count * capacity / 4096, Files: count, NameLen: 255}
	return fuse.OK
}
