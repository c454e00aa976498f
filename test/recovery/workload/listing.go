package main

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// listing reads a directory in small pieces, with pauses, so that clients die between two of them. Every name must come exactly once.
type listing struct {
	base
	want []string
	dir  *file
	got  []string
}

const listed = 300

func (w *listing) start() error {
	for i := range listed {
		name := fmt.Sprintf("name-with-some-length-%04d", i)
		f, err := w.open(w.path(name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
		if err != nil {
			return err
		}
		if err := f.close(); err != nil {
			return err
		}
		w.want = append(w.want, name)
		w.leaves(w.describe(name, nil))
	}
	return nil
}

// round reads one piece.
func (w *listing) round() (err error) {
	if w.dir == nil {
		if w.dir, err = w.open(w.base.dir, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return err
		}
		w.got = nil
	}
	buf := make([]byte, 1024)
	n, err := w.dir.entries(buf)
	if err != nil {
		return err
	}
	if n > 0 {
		_, _, w.got = unix.ParseDirent(buf[:n], -1, w.got)
		return nil
	}
	return w.compare()
}

func (w *listing) compare() error {
	err := w.dir.close()
	w.dir = nil
	slices.Sort(w.got)
	if !slices.Equal(w.got, w.want) {
		twice := len(w.got) - len(slices.Compact(slices.Clone(w.got)))
		err = errors.Join(err, fmt.Errorf("%s: %d names, want %d; twice: %d; missing: %v", w.base.dir, len(w.got), len(w.want), twice, without(w.want, w.got)))
	}
	return err
}

func (w *listing) finish() error {
	return w.dir.close()
}
