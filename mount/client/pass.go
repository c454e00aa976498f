package client

import "github.com/hanwen/go-fuse/v2/fuse"

// The requests in this file may be executed twice. Those that change something wait at the gate; the frequent others only show their number.

func (o *once) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	return o.RawFileSystem.SetAttr(cancel, in, out)
}

func (o *once) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	return o.RawFileSystem.Write(cancel, in, data)
}

func (o *once) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	return o.RawFileSystem.Writev(cancel, in, data)
}

func (o *once) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	return o.RawFileSystem.CopyFileRange(cancel, in)
}

func (o *once) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	return o.RawFileSystem.Fallocate(cancel, in)
}

func (o *once) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	o.enter(&in.InHeader)
	defer o.gate.leave()
	return o.RawFileSystem.Tmpfile(cancel, in, out)
}

func (o *once) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	o.see(h)
	return o.RawFileSystem.Lookup(cancel, h, name, out)
}

func (o *once) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	o.see(&in.InHeader)
	return o.RawFileSystem.GetAttr(cancel, in, out)
}

func (o *once) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	o.see(&in.InHeader)
	return o.RawFileSystem.Open(cancel, in, out)
}

func (o *once) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	o.see(&in.InHeader)
	return o.RawFileSystem.Read(cancel, in, buf)
}

func (o *once) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	o.see(&in.InHeader)
	return o.RawFileSystem.Flush(cancel, in)
}

func (o *once) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	o.see(&in.InHeader)
	return o.RawFileSystem.Fsync(cancel, in)
}

func (o *once) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, to []byte) (uint32, fuse.Status) {
	o.see(h)
	return o.RawFileSystem.GetXAttr(cancel, h, name, to)
}

func (o *once) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	o.see(&in.InHeader)
	return o.RawFileSystem.SetLk(cancel, in)
}

func (o *once) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	o.see(&in.InHeader)
	return o.RawFileSystem.ReadDirPlus(cancel, in, out)
}
