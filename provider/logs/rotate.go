package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	stampFormat    = "20060102-150405"
	compressSuffix = ".gz"
	temporary      = ".tmp"
)

// rotate moves a log aside, has the runtime open a new one, and keeps no more than maxFiles of them. reopen must make the runtime
// write to path again. The newest old file is not compressed, because the runtime and collectors may not be done with it.
func rotate(ctx context.Context, path string, maxFiles int, now time.Time, reopen func(context.Context) error) error {
	old, err := rotated(path)
	if err != nil {
		return err
	}
	// Beside them there will be the new file and the one that is moved aside now.
	excess := max(0, len(old)-max(0, maxFiles-2))
	for _, f := range old[:excess] {
		if err := remove(f); err != nil {
			return err
		}
	}
	for _, f := range old[excess:] {
		if strings.HasSuffix(f, compressSuffix) {
			continue
		}
		if err := compress(f); err != nil {
			return fmt.Errorf("compress %s: %w", f, err)
		}
	}
	aside := path + "." + now.UTC().Format(stampFormat)
	if _, err := os.Lstat(aside); err == nil {
		// It was rotated in this very second; the next look will do.
		return nil
	}
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if err := reopen(ctx); err != nil {
		// The runtime goes on writing to the file that it has, so that has to have its name again.
		return errors.Join(err, os.Rename(aside, path))
	}
	return nil
}

// plainFiles returns the files of a log that are not compressed, oldest first, the current one last.
func plainFiles(path string) ([]string, error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		return strings.HasSuffix(f, compressSuffix) || strings.HasSuffix(f, temporary)
	})
	return append(files, path), nil
}

// filesOf returns all files that bear the log's name and more, by name, which is by time.
func filesOf(path string) ([]string, error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+".") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

// rotated returns the old files of a log, oldest first, and removes what an interrupted rotation has left: unfinished files, and
// files whose compression was finished.
func rotated(path string) ([]string, error) {
	old, err := filesOf(path)
	if err != nil {
		return nil, err
	}
	var leftovers []string
	old = slices.DeleteFunc(old, func(f string) bool {
		leftover := strings.HasSuffix(f, temporary) || slices.Contains(old, f+compressSuffix)
		if leftover {
			leftovers = append(leftovers, f)
		}
		return leftover
	})
	for _, f := range leftovers {
		if err := remove(f); err != nil {
			return nil, err
		}
	}
	return old, nil
}

// compress replaces a file by a compressed one, which appears complete or not at all.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path+temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// An unfinished file must not be taken for a log.
			err = errors.Join(err, remove(path+temporary))
		}
	}()
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+temporary, path+compressSuffix); err != nil {
		return err
	}
	return remove(path)
}

// Remove removes a log and its rotated files; what is not there is no error.
func Remove(path string) error {
	old, err := rotated(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, f := range append(old, path) {
		errs = append(errs, remove(f))
	}
	return errors.Join(errs...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
