package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// blocks overwrites, truncates and reads one file through handles that stay open from the first round to the last. It knows every byte.
type blocks struct {
	base
	// file reads through the kernel's page cache, past does not: what only the cache still has is lost for everybody else.
	file, past *file
	content    []byte
	// mode is what the file is made with, later what it gets once it is open. They decide who may open it, and not what may be done with it by those
	// who have it open.
	mode, later uint32
}

const (
	blocksSize = 1 << 20
	// mostWritten is more than the largest request, so that some writes are several requests.
	mostWritten = 160 << 10
)

func (w *blocks) start() (err error) {
	name := w.path("data")
	if w.file, err = w.openMode(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, w.mode); err != nil {
		return err
	}
	if w.past, err = w.open(name, unix.O_RDONLY|unix.O_DIRECT); err != nil || w.later == w.mode {
		return err
	}
	return w.file.chmod(w.later)
}

// round is a burst of changes that nobody reads or syncs in between, and then one look at it.
func (w *blocks) round() error {
	for range 1 + w.rand.IntN(20) {
		if err := w.change(); err != nil {
			return err
		}
	}
	switch w.rand.IntN(4) {
	case 0:
		return w.file.sync()
	case 1:
		return w.check(w.past.direct)
	}
	return w.check(w.file.pread)
}

func (w *blocks) change() error {
	if w.rand.IntN(20) == 0 {
		return w.resize(int64(w.rand.IntN(blocksSize)))
	}
	b := make([]byte, 1+w.rand.IntN(1<<(4+w.rand.IntN(14))))
	if len(b) > mostWritten {
		b = b[:mostWritten]
	}
	w.fill(b)
	at := w.rand.IntN(blocksSize - len(b))
	if err := w.file.pwrite(b, int64(at)); err != nil {
		return err
	}
	if end := at + len(b); end > len(w.content) {
		w.content = append(w.content, make([]byte, end-len(w.content))...)
	}
	copy(w.content[at:], b)
	return nil
}

func (w *blocks) resize(size int64) error {
	if err := w.file.truncate(size); err != nil {
		return err
	}
	if int(size) <= len(w.content) {
		w.content = w.content[:size]
		return nil
	}
	w.content = append(w.content, make([]byte, int(size)-len(w.content))...)
	return nil
}

// check reads a part of the file.
func (w *blocks) check(read reading) error {
	if len(w.content) == 0 {
		return nil
	}
	at := w.rand.IntN(len(w.content))
	return w.read(read, at, min(len(w.content)-at, 1+w.rand.IntN(256<<10)))
}

// reading is a way to fill a buffer from the file.
type reading func(b []byte, at int64) error

func (w *blocks) read(read reading, at, n int) error {
	got := make([]byte, n)
	if err := read(got, int64(at)); err != nil {
		return err
	}
	return compare(w.file.name, int64(at), got, w.content[at:at+n])
}

func (w *blocks) finish() error {
	size, err := w.file.size()
	if err == nil && size != int64(len(w.content)) {
		err = &damage{w.file.name + ": wrong size", max(int64(len(w.content))-size, size-int64(len(w.content)))}
	}
	if err == nil && size > 0 {
		err = w.read(w.past.direct, 0, len(w.content))
	}
	if err == nil {
		err = w.file.chmod(w.mode) // so that it can be read when all is over
	}
	if err := errors.Join(err, w.file.close(), w.past.close()); err != nil {
		return err
	}
	w.leaves(w.describe("data", w.content))
	return nil
}

// describe says what a file of the worker must hold after everything has ended.
func (b *base) describe(name string, content []byte) report.File {
	sum := sha256.Sum256(content)
	path, err := filepath.Rel(b.volume, b.path(name))
	if err != nil {
		path = b.path(name)
	}
	return report.File{Path: path, Size: int64(len(content)), Sum: hex.EncodeToString(sum[:])}
}
