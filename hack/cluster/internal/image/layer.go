package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// File is a file of this machine to put into an image.
type File struct {
	Source string
	Target string
	Mode   int64
}

// Link is a symbolic link in the image.
type Link struct {
	Target string // what it points to
	Name   string // where it lies
}

// Dir is a directory in the image.
type Dir struct {
	Name string
	Mode int64
}

// Layer is the content of an image. Parent directories are made as needed, root:root and 0755.
type Layer struct {
	Dirs  []Dir
	Files []File
	Links []Link
}

// tar packs the layer. Times are zero and owners root, so that the same content has the same digest.
func (l Layer) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := &layerWriter{tar: tar.NewWriter(&buf), made: map[string]bool{".": true, "/": true, "": true}}
	for _, d := range l.Dirs {
		if err := w.dir(clean(d.Name), d.Mode); err != nil {
			return nil, err
		}
	}
	for _, f := range l.Files {
		if err := w.file(f); err != nil {
			return nil, fmt.Errorf("put %s into the image: %w", f.Source, err)
		}
	}
	for _, link := range l.Links {
		name := clean(link.Name)
		if err := w.parents(name); err != nil {
			return nil, err
		}
		if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: link.Target, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.tar.Close()
}

type layerWriter struct {
	tar  *tar.Writer
	made map[string]bool
}

func (w *layerWriter) parents(name string) error {
	dir := path.Dir(name)
	if w.made[dir] {
		return nil
	}
	return w.dir(dir, 0o755)
}

func (w *layerWriter) dir(name string, mode int64) error {
	if w.made[name] {
		return nil
	}
	if err := w.parents(name); err != nil {
		return err
	}
	w.made[name] = true
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

func (w *layerWriter) file(f File) error {
	name := clean(f.Target)
	if err := w.parents(name); err != nil {
		return err
	}
	in, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("not a regular file")
	}
	mode := f.Mode
	if mode == 0 {
		mode = int64(st.Mode().Perm())
	}
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: st.Size(), Mode: mode}); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, in)
	return err
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
