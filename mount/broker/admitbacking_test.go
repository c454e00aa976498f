package broker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse/fusetest"
)

func TestAdmitBacking(t *testing.T) {
	const file = unix.S_IFREG | 0o644
	for name, c := range map[string]struct {
		b  backing
		ok bool
	}{
		"for both":                           {backing{file, unix.O_RDWR, false}, true},
		"for both, on a read-only mount":     {backing{file, unix.O_RDWR, true}, true},
		"for both, synchronously":            {backing{file, unix.O_RDWR | unix.O_SYNC, false}, true},
		"for reading":                        {backing{file, unix.O_RDONLY, false}, false},
		"for reading, on a read-only mount":  {backing{file, unix.O_RDONLY, true}, true},
		"for writing":                        {backing{file, unix.O_WRONLY, false}, false},
		"for appending":                      {backing{file, unix.O_RDWR | unix.O_APPEND, false}, false},
		"as a place":                         {backing{file, unix.O_RDWR | unix.O_PATH, false}, false},
		"a place without a mode":             {backing{0, unix.O_PATH, false}, false},
		"a directory":                        {backing{unix.S_IFDIR | 0o755, unix.O_RDONLY, true}, false},
		"a device":                           {backing{unix.S_IFCHR | 0o666, unix.O_RDWR, false}, false},
		"a block device":                     {backing{unix.S_IFBLK | 0o666, unix.O_RDWR, false}, false},
		"a pipe":                             {backing{unix.S_IFIFO | 0o666, unix.O_RDWR, false}, false},
		"a socket":                           {backing{unix.S_IFSOCK | 0o666, unix.O_RDWR, false}, false},
		"an access that there is not":        {backing{file, unix.O_ACCMODE, true}, false},
		"for reading and appending, as file": {backing{file, unix.O_RDONLY | unix.O_APPEND, true}, false},
	} {
		err := admitBacking(c.b)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, mount.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags int
		ok    bool
	}{
		"for both":      {unix.O_RDWR, true},
		"for reading":   {unix.O_RDONLY, false},
		"for appending": {unix.O_RDWR | unix.O_APPEND, false},
		"as a place":    {unix.O_PATH, false},
	} {
		fd, err := unix.Open(path, c.flags, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), name)
		inspector := newBackings()
		b, err := inspector.inspect(t.Context(), f)
		if err == nil {
			err = admitBacking(b)
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

func TestInspectDoesNotWaitForATenantsServer(t *testing.T) {
	fs := fusetest.New(t, fusetest.GetAttr, fusetest.StatFS)
	s := newBackings()
	for name, c := range map[string]struct {
		flags int
		ok    bool
	}{"for both": {unix.O_RDWR, true}, "for reading": {unix.O_RDONLY, false}, "for reading, again": {unix.O_RDONLY, false}} {
		number, err := fs.Open(c.flags)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(number), name)
		defer f.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = s.inspect(ctx, f)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, mount.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := fs.Asked(fusetest.GetAttr); n != 0 {
		t.Errorf("attributes were asked for %d times", n)
	}
	if n := fs.Asked(fusetest.StatFS); n > 1 {
		t.Errorf("the file system was asked %d times at once", n)
	}
}
