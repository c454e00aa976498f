package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// names makes, renames, links and removes names at random, and knows which there are and what the files behind them hold. Each call
// must give exactly the result that follows from that, also when it is executed while the client dies.
type names struct {
	base
	files map[string]*linked
	dirs  map[string]bool
	next  int
}

// linked is a file with its names.
type linked struct {
	content []byte
	names   int
}

// mostNames keeps the directory small enough to be read often.
const mostNames = 60

func (w *names) start() error {
	w.files, w.dirs = map[string]*linked{}, map[string]bool{}
	return nil
}

func (w *names) round() error {
	for range 1 + w.rand.IntN(8) {
		if err := w.step(); err != nil {
			return err
		}
	}
	return w.list()
}

func (w *names) step() error {
	steps := []func() error{w.create, w.createTwice, w.rename, w.link, w.unlink, w.read, w.makeDir, w.removeDir, w.missing}
	if len(w.files) >= mostNames {
		return w.unlink()
	}
	return steps[w.rand.IntN(len(steps))]()
}

// fresh is a name that was never used.
func (w *names) fresh(prefix string) string {
	w.next++
	return fmt.Sprintf("%s-%06d", prefix, w.next)
}

// some is a name of a file, empty if there is none.
func (w *names) some() string {
	return w.pick(slices.Sorted(maps.Keys(w.files)))
}

func (w *names) pick(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[w.rand.IntN(len(all))]
}

func (w *names) create() error {
	name := w.fresh("file")
	f, err := w.open(w.path(name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	content := make([]byte, w.rand.IntN(6000))
	w.fill(content)
	if len(content) > 0 {
		err = f.pwrite(content, 0)
	}
	if err := errors.Join(err, f.close()); err != nil {
		return err
	}
	w.files[name] = &linked{content: content, names: 1}
	return nil
}

// createTwice must be refused: a name is made once.
func (w *names) createTwice() error {
	name := w.some()
	if name == "" {
		return nil
	}
	f, err := w.open(w.path(name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err == nil {
		return errors.Join(fmt.Errorf("create %s: it was there and was made again", name), f.close())
	}
	return only(err, unix.EEXIST)
}

// only accepts one error.
func only(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("want %w, got %w", want, err)
}

func (w *names) rename() error {
	from, to := w.some(), w.fresh("moved")
	if from == "" {
		return nil
	}
	if over := w.some(); w.rand.IntN(3) == 0 && w.files[over] != w.files[from] {
		to = over
	}
	if err := w.call("rename", from, func() error { return unix.Rename(w.path(from), w.path(to)) }); err != nil {
		return err
	}
	if old := w.files[to]; old != nil {
		old.names--
	}
	w.files[to] = w.files[from]
	delete(w.files, from)
	return w.absent(from)
}

func (w *names) link() error {
	from, to := w.some(), w.fresh("link")
	if from == "" {
		return nil
	}
	if err := w.call("link", from, func() error { return unix.Link(w.path(from), w.path(to)) }); err != nil {
		return err
	}
	w.files[from].names++
	w.files[to] = w.files[from]
	return nil
}

func (w *names) unlink() error {
	name := w.some()
	if name == "" {
		return nil
	}
	if err := w.call("unlink", name, func() error { return unix.Unlink(w.path(name)) }); err != nil {
		return err
	}
	w.files[name].names--
	delete(w.files, name)
	return w.absent(name)
}

// read opens a file anew and compares all of it, and the number of its names.
func (w *names) read() error {
	name := w.some()
	if name == "" {
		return nil
	}
	f, err := w.open(w.path(name), unix.O_RDONLY)
	if err != nil {
		return err
	}
	want := w.files[name]
	got := make([]byte, len(want.content)+1)
	n, err := f.next(got)
	if err == io.EOF {
		n, err = 0, nil
	}
	if err == nil && n != len(want.content) {
		err = &damage{fmt.Sprintf("%s has %d bytes, want %d", name, n, len(want.content)), int64(max(n, len(want.content)) - min(n, len(want.content)))}
	}
	if err == nil {
		err = compare(name, 0, got[:n], want.content)
	}
	var st unix.Stat_t
	if err == nil {
		err = w.call("stat", name, func() error { return unix.Stat(w.path(name), &st) })
	}
	if err == nil && int(st.Nlink) != want.names {
		err = fmt.Errorf("%s has %d names, want %d", name, st.Nlink, want.names)
	}
	return errors.Join(err, f.close())
}

func (w *names) makeDir() error {
	name := w.fresh("dir")
	if err := w.call("mkdir", name, func() error { return unix.Mkdir(w.path(name), 0o755) }); err != nil {
		return err
	}
	w.dirs[name] = true
	return nil
}

func (w *names) removeDir() error {
	name := w.pick(slices.Sorted(maps.Keys(w.dirs)))
	if name == "" {
		return nil
	}
	if err := w.call("rmdir", name, func() error { return unix.Rmdir(w.path(name)) }); err != nil {
		return err
	}
	delete(w.dirs, name)
	return w.absent(name)
}

// missing asks for what was never there.
func (w *names) missing() error {
	name := w.fresh("missing")
	return only(w.call("unlink", name, func() error { return unix.Unlink(w.path(name)) }), unix.ENOENT)
}

func (w *names) absent(name string) error {
	var st unix.Stat_t
	return only(w.call("stat", name, func() error { return unix.Lstat(w.path(name), &st) }), unix.ENOENT)
}

// list reads the directory and compares it with what must be there.
func (w *names) list() error {
	got, err := w.readDir(w.dir)
	if err != nil {
		return err
	}
	want := slices.AppendSeq(slices.Collect(maps.Keys(w.files)), maps.Keys(w.dirs))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: it lists %d names, want %d; too many: %v; missing: %v", w.dir, len(got), len(want), without(got, want), without(want, got))
	}
	return nil
}

func without(all, those []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(those, n) })
}

func (w *names) finish() error {
	if err := w.list(); err != nil {
		return err
	}
	for name, f := range w.files {
		w.leaves(w.describe(name, f.content))
	}
	return nil
}

// call runs and records a call about a name.
func (b *base) call(class, name string, op func() error) error {
	if err := b.do(class, op); err != nil {
		return fmt.Errorf("%s %s: %w", class, name, err)
	}
	return nil
}

// readDir reads a directory from its beginning to its end.
func (b *base) readDir(dir string) ([]string, error) {
	f, err := b.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	var all []string
	buf := make([]byte, 8192)
	for {
		n, err := f.entries(buf)
		if err != nil || n == 0 {
			return all, errors.Join(err, f.close())
		}
		_, _, all = unix.ParseDirent(buf[:n], -1, all)
	}
}

// entries reads the next entries of a directory in the kernel's form.
func (f *file) entries(buf []byte) (n int, err error) {
	err = f.s.do("readdir", func() (err error) {
		n, err = unix.Getdents(f.fd, buf)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("readdir %s: %w", f.name, err)
	}
	return n, nil
}
