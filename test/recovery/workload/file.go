package main

import (
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// file is an open file. It calls the kernel directly: package os repeats calls that were interrupted, and an application in C would not.
type file struct {
	s    *scene
	fd   int
	name string
}

func (s *scene) open(name string, flags int) (*file, error) {
	return s.openMode(name, flags, 0o644)
}

// openMode makes a file with a mode of its own.
func (s *scene) openMode(name string, flags int, mode uint32) (*file, error) {
	f := &file{s: s, fd: -1, name: name}
	class := "open"
	if flags&unix.O_CREAT != 0 {
		class = "create"
	}
	err := s.do(class, func() (err error) {
		f.fd, err = unix.Open(name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", class, name, err)
	}
	return f, nil
}

// pwrite writes all of b, as one call does on a regular file.
func (f *file) pwrite(b []byte, at int64) error {
	var n int
	err := f.s.do("pwrite", func() (err error) {
		n, err = unix.Pwrite(f.fd, b, at)
		return err
	})
	return f.whole("pwrite", n, len(b), err)
}

// append writes all of b to a file that was opened with O_APPEND.
func (f *file) append(b []byte) error {
	var n int
	err := f.s.do("append", func() (err error) {
		n, err = unix.Write(f.fd, b)
		return err
	})
	return f.whole("append", n, len(b), err)
}

// pread fills b.
func (f *file) pread(b []byte, at int64) error {
	var n int
	err := f.s.do("pread", func() (err error) {
		n, err = unix.Pread(f.fd, b, at)
		return err
	})
	return f.whole("pread", n, len(b), err)
}

// directAlign suits every file system's O_DIRECT.
const directAlign = 4096

// direct fills b from a file that was opened with O_DIRECT, whose offsets, lengths and addresses in memory must be round numbers.
func (f *file) direct(b []byte, at int64) error {
	from := at &^ (directAlign - 1)
	length := (int(at-from) + len(b) + directAlign - 1) &^ (directAlign - 1)
	room := make([]byte, length+directAlign)
	skew := directAlign - int(uintptr(unsafe.Pointer(&room[0]))%directAlign)
	room = room[skew:][:length]
	var n int
	err := f.s.do("pread direct", func() (err error) {
		n, err = unix.Pread(f.fd, room, from)
		return err
	})
	// The last block of a file may be short.
	n = min(max(0, n-int(at-from)), len(b))
	copy(b, room[int(at-from):][:n])
	return f.whole("pread direct", n, len(b), err)
}

// next reads what follows at the file's offset; io.EOF if nothing does.
func (f *file) next(b []byte) (int, error) {
	var n int
	err := f.s.do("read", func() (err error) {
		n, err = unix.Read(f.fd, b)
		return err
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("read %s: %w", f.name, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (f *file) whole(op string, n, want int, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", op, f.name, err)
	case n != want:
		return &damage{fmt.Sprintf("%s %s: %d of %d bytes", op, f.name, n, want), int64(want - n)}
	}
	return nil
}

func (f *file) sync() error {
	if err := f.s.do("fsync", func() error { return unix.Fsync(f.fd) }); err != nil {
		return fmt.Errorf("fsync %s: %w", f.name, err)
	}
	return nil
}

func (f *file) chmod(mode uint32) error {
	if err := f.s.do("chmod", func() error { return unix.Fchmod(f.fd, mode) }); err != nil {
		return fmt.Errorf("chmod %s: %w", f.name, err)
	}
	return nil
}

func (f *file) truncate(size int64) error {
	if err := f.s.do("truncate", func() error { return unix.Ftruncate(f.fd, size) }); err != nil {
		return fmt.Errorf("truncate %s: %w", f.name, err)
	}
	return nil
}

// size asks the file system, by the open file.
func (f *file) size() (int64, error) {
	var st unix.Stat_t
	if err := f.s.do("fstat", func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return 0, fmt.Errorf("fstat %s: %w", f.name, err)
	}
	return st.Size, nil
}

// close reports what the file system kept back until now.
func (f *file) close() error {
	if f == nil || f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	if err := f.s.do("close", func() error { return unix.Close(fd) }); err != nil {
		return fmt.Errorf("close %s: %w", f.name, err)
	}
	return nil
}

// compare returns the damage of a range of a file, nil if there is none.
func compare(what string, at int64, got, want []byte) error {
	var bad int64
	first := -1
	for i := range want {
		if got[i] != want[i] {
			bad++
			if first < 0 {
				first = i
			}
		}
	}
	if bad == 0 {
		return nil
	}
	return &damage{fmt.Sprintf("%s from byte %d", what, at+int64(first)), bad}
}
