package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// removed uses files that have no name any more but are open.
type removed struct {
	base
	files []*orphan
	next  int
}

type orphan struct {
	*file
	content []byte
}

// mostOrphans stay open over many kills before they are closed.
const mostOrphans = 6

func (w *removed) start() error { return nil }

func (w *removed) round() error {
	if len(w.files) < mostOrphans {
		return w.add()
	}
	if w.rand.IntN(200) == 0 {
		oldest := w.files[0]
		w.files = w.files[1:]
		return errors.Join(oldest.check(), oldest.close())
	}
	o := w.files[w.rand.IntN(len(w.files))]
	b := make([]byte, 1+w.rand.IntN(4096))
	w.fill(b)
	at := w.rand.IntN(len(o.content) - len(b))
	if err := o.pwrite(b, int64(at)); err != nil {
		return err
	}
	copy(o.content[at:], b)
	return o.check()
}

func (w *removed) add() error {
	w.next++
	name := w.path(fmt.Sprintf("file-%d", w.next))
	f, err := w.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	o := &orphan{f, make([]byte, 32<<10)}
	w.fill(o.content)
	if err := f.pwrite(o.content, 0); err != nil {
		return err
	}
	w.files = append(w.files, o)
	return w.call("unlink", name, func() error { return unix.Unlink(name) })
}

func (o *orphan) check() error {
	got := make([]byte, len(o.content))
	if err := o.pread(got, 0); err != nil {
		return err
	}
	return compare(o.name+" (removed)", 0, got, o.content)
}

func (w *removed) finish() error {
	var all error
	for _, o := range w.files {
		all = errors.Join(all, o.check(), o.close())
	}
	left, err := w.readDir(w.dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s: removed files are listed: %v", w.dir, left)
	}
	return errors.Join(all, err)
}
