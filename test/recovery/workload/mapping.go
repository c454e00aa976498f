package main

import (
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// mapping writes through a shared mapping, and compares with what a read past the page cache finds after msync.
type mapping struct {
	base
	file, past *file
	mem        []byte
	content    []byte
}

const mappingSize = 256 << 10

func (w *mapping) start() (err error) {
	name := w.path("mapped")
	if w.file, err = w.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); err != nil {
		return err
	}
	if err := w.file.truncate(mappingSize); err != nil {
		return err
	}
	if w.past, err = w.open(name, unix.O_RDONLY|unix.O_DIRECT); err != nil {
		return err
	}
	w.content = make([]byte, mappingSize)
	w.mem, err = unix.Mmap(w.file.fd, 0, mappingSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", name, err)
	}
	return nil
}

func (w *mapping) round() error {
	for range 1 + w.rand.IntN(10) {
		b := make([]byte, 1+w.rand.IntN(6000))
		w.fill(b)
		at := w.rand.IntN(mappingSize - len(b))
		if err := w.call("store", w.file.name, func() error { return store(w.mem[at:], b) }); err != nil {
			return err
		}
		copy(w.content[at:], b)
	}
	if w.rand.IntN(8) > 0 {
		return compare(w.file.name+" (mapped)", 0, w.mem, w.content)
	}
	return w.check()
}

// store copies into a mapping. A page that cannot be had is an error and not the end of the process.
func store(to, b []byte) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = fmt.Errorf("page fault: %v", r)
		}
	}()
	copy(to, b)
	return nil
}

func (w *mapping) check() error {
	if err := w.call("msync", w.file.name, func() error { return unix.Msync(w.mem, unix.MS_SYNC) }); err != nil {
		return err
	}
	got := make([]byte, mappingSize)
	if err := w.past.direct(got, 0); err != nil {
		return err
	}
	return compare(w.file.name, 0, got, w.content)
}

func (w *mapping) finish() error {
	err := errors.Join(w.check(), unix.Munmap(w.mem), w.file.close(), w.past.close())
	if err == nil {
		w.leaves(w.describe("mapped", w.content))
	}
	return err
}
