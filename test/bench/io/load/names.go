package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nameCount = 500
	// listings is how often the directory is read; once is over too soon.
	listings = 20
)

// names measures what is done to names: each file is made, looked at with its attributes asked for anew, listed and removed.
func names(dir string) ([]figure, error) {
	place := filepath.Join(dir, "names")
	if err := os.Mkdir(place, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(place)
	path := func(i int) string { return filepath.Join(place, fmt.Sprintf("file-%05d", i)) }
	var all []figure
	for _, step := range []struct {
		name   string
		count  int
		each   int // names in one call
		action func(i int) error
	}{
		{"create and close", nameCount, 1, func(i int) error { return create(path(i)) }},
		{"stat", nameCount, 1, func(i int) error {
			var st unix.Statx_t
			return unix.Statx(unix.AT_FDCWD, path(i), unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
		}},
		{"readdir, names", listings, nameCount, func(int) error { return list(place) }},
		{"unlink", nameCount, 1, func(i int) error { return unix.Unlink(path(i)) }},
	} {
		began := time.Now()
		for i := range step.count {
			if err := step.action(i); err != nil {
				return nil, fmt.Errorf("%s: %w", step.name, err)
			}
		}
		all = append(all, figure{step.name, "1/s", float64(step.count*step.each) / time.Since(began).Seconds()})
	}
	return all, nil
}

func create(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func list(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := f.Readdirnames(-1)
	if err == nil && len(found) != nameCount {
		err = fmt.Errorf("%d names, want %d", len(found), nameCount)
	}
	return err
}
