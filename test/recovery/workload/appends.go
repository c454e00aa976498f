package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// appends adds records to files in O_APPEND mode, with a handle that stays open and with one that is opened for each record.
type appends struct {
	base
	long    *file
	content map[string][]byte
}

// mostAppended is where a file starts anew.
const mostAppended = 512 << 10

func (w *appends) start() (err error) {
	w.content = map[string][]byte{"long": nil, "short": nil}
	w.long, err = w.open(w.path("long"), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL)
	return err
}

func (w *appends) round() error {
	record := make([]byte, 16+w.rand.IntN(600))
	w.fill(record)
	if err := w.long.append(record); err != nil {
		return err
	}
	w.content["long"] = append(w.content["long"], record...)
	if len(w.content["long"]) > mostAppended {
		if err := w.long.truncate(0); err != nil {
			return err
		}
		w.content["long"] = nil
	}
	if err := w.short(record); err != nil {
		return err
	}
	if w.rand.IntN(25) == 0 {
		return w.check()
	}
	return nil
}

func (w *appends) short(record []byte) error {
	flags := unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT
	if len(w.content["short"]) > mostAppended {
		flags |= unix.O_TRUNC
		w.content["short"] = nil
	}
	f, err := w.open(w.path("short"), flags)
	if err != nil {
		return err
	}
	if err := errors.Join(f.append(record), f.close()); err != nil {
		return err
	}
	w.content["short"] = append(w.content["short"], record...)
	return nil
}

func (w *appends) check() error {
	for name, want := range w.content {
		f, err := w.open(w.path(name), unix.O_RDONLY)
		if err != nil {
			return err
		}
		size, err := f.size()
		if err == nil && size != int64(len(want)) {
			err = &damage{fmt.Sprintf("%s has %d bytes, want %d", f.name, size, len(want)), max(size-int64(len(want)), int64(len(want))-size)}
		}
		got := make([]byte, len(want))
		if err == nil && len(got) > 0 {
			err = f.pread(got, 0)
		}
		if err == nil {
			err = compare(f.name, 0, got, want)
		}
		if err := errors.Join(err, f.close()); err != nil {
			return err
		}
	}
	return nil
}

func (w *appends) finish() error {
	if err := errors.Join(w.check(), w.long.close()); err != nil {
		return err
	}
	for name, content := range w.content {
		w.leaves(w.describe(name, content))
	}
	return nil
}
