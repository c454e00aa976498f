package filesystem_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rules are what applications rely on and go-fuse's suite does not look at. Each runs in a directory of its own.
var rules = map[string]func(t *testing.T, dir string){
	"O_EXCL makes a name once":                          exclusiveCreate,
	"rename replaces, exchanges and refuses":            renames,
	"hard links share one inode":                        hardLinks,
	"extended attributes are kept":                      extendedAttributes,
	"locks conflict between open files":                 lockConflicts,
	"unlinked files stay while open":                    unlinkedOpen,
	"a big directory lists every name once":             bigDirectory,
	"listing goes on while names go":                    listWhileRemoving,
	"a listing shows a name that was replaced":          listWhileReplacing,
	"a shared mapping is the file":                      sharedMapping,
	"holes read as zero":                                holes,
	"fallocate grows, punches and zeroes":               allocation,
	"copy_file_range copies":                            copyRange,
	"times and modes are what was set":                  times,
	"special files and long names":                      specialFiles,
	"statfs has figures":                                statfs,
	"writes of two open files meet":                     twoWriters,
	"the pseudo files are hidden and can be opened":     pseudoFiles,
	"O_TMPFILE has no name":                             temporary,
	"a directory that is not empty cannot be removed":   notEmpty,
	"umask and O_TRUNC apply":                           openFlags,
	"more tiny writes than the log has records":         tinyWrites,
	"truncation through a descriptor that was unlinked": truncateUnlinked,
}

func TestRules(t *testing.T) {
	mnt := startMount(t, sqliteVolume(t.TempDir()))
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) { rule(t, subdir(t, mnt)) })
	}
}

func exclusiveCreate(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := create(t, name)
	defer f.Close()
	if _, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second exclusive create: %v, want EEXIST", err)
	}
}

func renames(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "a")
	write(t, b, "b")
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE); err != unix.EEXIST {
		t.Errorf("rename without replacing: %v, want EEXIST", err)
	}
	check(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
	if read(t, a) != "b" || read(t, b) != "a" {
		t.Errorf("after the exchange a holds %q and b %q", read(t, a), read(t, b))
	}
	check(t, os.Rename(a, b))
	if got := read(t, b); got != "b" {
		t.Errorf("after the rename b holds %q", got)
	}
	check(t, os.Mkdir(filepath.Join(dir, "full"), 0o755))
	write(t, filepath.Join(dir, "full", "x"), "")
	check(t, os.Mkdir(filepath.Join(dir, "other"), 0o755))
	if err := unix.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "full")); err != unix.ENOTEMPTY {
		t.Errorf("rename over a full directory: %v, want ENOTEMPTY", err)
	}
}

func hardLinks(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "one")
	check(t, os.Link(a, b))
	appendTo(t, b, " two")
	if got := read(t, a); got != "one two" {
		t.Errorf("the other name holds %q", got)
	}
	var st unix.Stat_t
	check(t, unix.Stat(a, &st))
	if st.Nlink != 2 {
		t.Errorf("link count is %d, want 2", st.Nlink)
	}
	check(t, os.Remove(a))
	if got := read(t, b); got != "one two" {
		t.Errorf("the remaining name holds %q", got)
	}
}

func extendedAttributes(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "")
	value := bytes.Repeat([]byte("v"), 4000)
	check(t, unix.Setxattr(name, "user.big", value, unix.XATTR_CREATE))
	if err := unix.Setxattr(name, "user.big", value, unix.XATTR_CREATE); err != unix.EEXIST {
		t.Errorf("create twice: %v, want EEXIST", err)
	}
	got := make([]byte, len(value))
	if n, err := unix.Getxattr(name, "user.big", got); err != nil || !bytes.Equal(got[:n], value) {
		t.Errorf("read %d bytes: %v", n, err)
	}
	if _, err := unix.Getxattr(name, "user.big", make([]byte, 10)); err != unix.ERANGE {
		t.Errorf("read into a small buffer: %v, want ERANGE", err)
	}
	list := make([]byte, 100)
	if n, err := unix.Listxattr(name, list); err != nil || string(list[:n]) != "user.big\x00" {
		t.Errorf("list %q: %v", list[:n], err)
	}
	check(t, unix.Removexattr(name, "user.big"))
	if _, err := unix.Getxattr(name, "user.big", got); err != unix.ENODATA {
		t.Errorf("read what was removed: %v, want ENODATA", err)
	}
}

func lockConflicts(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	first, second := create(t, name), open(t, name, os.O_RDWR)
	defer second.Close()
	check(t, unix.Flock(int(first.Fd()), unix.LOCK_EX))
	if err := unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("second flock: %v, want EWOULDBLOCK", err)
	}
	check(t, unix.FcntlFlock(first.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 10}))
	if err := unix.FcntlFlock(second.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 9, Len: 1}); err != unix.EAGAIN {
		t.Errorf("lock of a locked byte: %v, want EAGAIN", err)
	}
	check(t, unix.FcntlFlock(second.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 10, Len: 1}))
	waiting := make(chan error, 1)
	go func() { waiting <- unix.Flock(int(second.Fd()), unix.LOCK_EX) }()
	check(t, first.Close())
	select {
	case err := <-waiting:
		check(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("closing the holder does not wake the waiter")
	}
	check(t, unix.FcntlFlock(second.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 10}))
}

func unlinkedOpen(t *testing.T, dir string) {
	f := create(t, filepath.Join(dir, "file"))
	defer f.Close()
	check(t, os.Remove(f.Name()))
	if _, err := f.WriteString("unlinked"); err != nil {
		t.Fatal(err)
	}
	check(t, f.Sync())
	got := make([]byte, 8)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "unlinked" {
		t.Errorf("read %q: %v", got, err)
	}
}

func bigDirectory(t *testing.T, dir string) {
	const count = 5000
	for i := range count {
		check(t, syscall.Mknod(filepath.Join(dir, fmt.Sprintf("name-%d", i)), syscall.S_IFREG|0o644, 0))
	}
	seen := make(map[string]bool)
	d := open(t, dir, os.O_RDONLY)
	defer d.Close()
	for {
		names, err := d.Readdirnames(700)
		for _, name := range names {
			if seen[name] {
				t.Fatalf("%s is listed twice", name)
			}
			seen[name] = true
		}
		if err != nil {
			break
		}
	}
	if len(seen) != count {
		t.Errorf("%d names are listed, want %d", len(seen), count)
	}
	check(t, os.RemoveAll(dir))
}

func listWhileRemoving(t *testing.T, dir string) {
	for i := range 1000 {
		write(t, filepath.Join(dir, fmt.Sprintf("name-%d", i)), "")
	}
	d := open(t, dir, os.O_RDONLY)
	defer d.Close()
	for {
		names, err := d.Readdirnames(50)
		if err != nil {
			break
		}
		for _, name := range names {
			check(t, os.Remove(filepath.Join(dir, name)))
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d names are left: %v", len(left), err)
	}
}

func listWhileReplacing(t *testing.T, dir string) {
	for i := range 600 {
		write(t, filepath.Join(dir, fmt.Sprintf("name-%d", i)), "")
	}
	d := open(t, dir, os.O_RDONLY)
	defer d.Close()
	first, err := d.Readdirnames(10)
	check(t, err)
	for i := range 600 {
		temporary := filepath.Join(dir, "temporary")
		write(t, temporary, "new")
		check(t, os.Rename(temporary, filepath.Join(dir, fmt.Sprintf("name-%d", i))))
	}
	rest, err := d.Readdirnames(-1)
	check(t, err)
	names := slices.DeleteFunc(append(first, rest...), func(s string) bool { return s == "temporary" })
	if len(names) != 600 {
		t.Errorf("%d names are listed, want 600", len(names))
	}
}

func sharedMapping(t *testing.T, dir string) {
	const size = 256 << 10
	f := create(t, filepath.Join(dir, "file"))
	check(t, f.Truncate(size))
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	copy(mem[size-10:], "end of map")
	check(t, unix.Msync(mem, unix.MS_SYNC))
	check(t, unix.Munmap(mem))
	check(t, f.Close())
	if got := read(t, f.Name()); len(got) != size || got[size-10:] != "end of map" {
		t.Errorf("the file has %d bytes and ends with %q", len(got), got[max(0, len(got)-10):])
	}
}

func holes(t *testing.T, dir string) {
	f := create(t, filepath.Join(dir, "file"))
	defer f.Close()
	const far = 200 << 20
	if _, err := f.WriteAt([]byte("far"), far); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4096)
	if _, err := f.ReadAt(got, far/2); err != nil || !bytes.Equal(got, make([]byte, 4096)) {
		t.Errorf("the hole does not read as zero: %v", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != far+3 {
		t.Errorf("size is %d, want %d: %v", info.Size(), far+3, err)
	}
}

func allocation(t *testing.T, dir string) {
	f := create(t, filepath.Join(dir, "file"))
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("x"), 10000)); err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
	check(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1000, 1000))
	check(t, unix.Fallocate(fd, 0, 0, 20000))
	want := slices.Concat(bytes.Repeat([]byte("x"), 1000), make([]byte, 1000), bytes.Repeat([]byte("x"), 8000), make([]byte, 10000))
	if got := read(t, f.Name()); got != string(want) {
		t.Errorf("the file has %d bytes, want %d, or others", len(got), len(want))
	}
}

func copyRange(t *testing.T, dir string) {
	write(t, filepath.Join(dir, "from"), strings.Repeat("0123456789", 1000))
	from, to := open(t, filepath.Join(dir, "from"), os.O_RDONLY), create(t, filepath.Join(dir, "to"))
	defer from.Close()
	defer to.Close()
	offset := int64(5)
	n, err := unix.CopyFileRange(int(from.Fd()), &offset, int(to.Fd()), nil, 100, 0)
	if err != nil || n != 100 {
		t.Fatalf("copied %d bytes: %v", n, err)
	}
	if got := read(t, to.Name()); got != strings.Repeat("5678901234", 10) {
		t.Errorf("the copy holds %q", got)
	}
}

func times(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := create(t, name)
	if _, err := f.WriteString("data"); err != nil {
		t.Fatal(err)
	}
	past := time.Date(1999, 12, 31, 23, 59, 58, 987654000, time.UTC)
	check(t, os.Chtimes(name, past, past))
	check(t, f.Close())
	check(t, os.Chmod(name, 0o4711))
	check(t, os.Chown(name, 1234, 4321))
	var st unix.Stat_t
	check(t, unix.Stat(name, &st))
	if got := time.Unix(st.Mtim.Unix()); !got.Equal(past) {
		t.Errorf("mtime is %s, want %s", got, past)
	}
	if st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("owner is %d:%d", st.Uid, st.Gid)
	}
	check(t, os.Chmod(name, 0o640))
	check(t, unix.Stat(name, &st))
	if st.Mode != unix.S_IFREG|0o640 {
		t.Errorf("mode is %o", st.Mode)
	}
}

func specialFiles(t *testing.T, dir string) {
	check(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	long := filepath.Join(dir, strings.Repeat("n", 255))
	write(t, long, "long")
	if err := os.WriteFile(long+"n", nil, 0o600); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a name of 256 bytes: %v, want ENAMETOOLONG", err)
	}
	check(t, os.Symlink(long, filepath.Join(dir, "link")))
	if got := read(t, filepath.Join(dir, "link")); got != "long" {
		t.Errorf("through the symlink: %q", got)
	}
	if info, err := os.Lstat(filepath.Join(dir, "fifo")); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Errorf("the fifo is %v: %v", info.Mode(), err)
	}
}

func statfs(t *testing.T, dir string) {
	var st unix.Statfs_t
	check(t, unix.Statfs(dir, &st))
	if st.Blocks == 0 || st.Bavail == 0 || st.Files == 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v", st)
	}
}

func twoWriters(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	a, b := create(t, name), open(t, name, os.O_RDWR)
	defer a.Close()
	defer b.Close()
	for i := range 50 {
		if _, err := a.WriteAt([]byte{byte(i)}, int64(2*i)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.WriteAt([]byte{byte(i)}, int64(2*i+1)); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, name)
	for i := range 100 {
		if i >= len(got) || got[i] != byte(i/2) {
			t.Fatalf("byte %d of %d is wrong", i, len(got))
		}
	}
}

func pseudoFiles(t *testing.T, dir string) {
	root := filepath.Dir(dir)
	list, err := os.ReadDir(root)
	check(t, err)
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("the root lists %s", e.Name())
		}
	}
	text := read(t, filepath.Join(root, ".config"))
	if !strings.Contains(text, "\"Name\": \"testfs\"") {
		t.Errorf(".config holds %.200s", text)
	}
	if !strings.Contains(read(t, filepath.Join(root, ".stats")), "juicefs_fuse_open_handlers") {
		t.Error(".stats holds no figures")
	}
}

func temporary(t *testing.T, dir string) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err == unix.EOPNOTSUPP {
		t.Skip("the kernel does not pass O_TMPFILE on")
	}
	check(t, err)
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("the directory has %d entries: %v", len(list), err)
	}
}

func notEmpty(t *testing.T, dir string) {
	check(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	if err := unix.Rmdir(filepath.Join(dir, "a")); err != unix.ENOTEMPTY {
		t.Errorf("rmdir: %v, want ENOTEMPTY", err)
	}
	check(t, os.RemoveAll(filepath.Join(dir, "a")))
}

func openFlags(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	old := unix.Umask(0o027)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o777)
	unix.Umask(old)
	check(t, err)
	info, err := f.Stat()
	check(t, err)
	if info.Mode().Perm() != 0o750 {
		t.Errorf("mode is %o, want 750", info.Mode().Perm())
	}
	if _, err := f.WriteString("to be cut"); err != nil {
		t.Fatal(err)
	}
	check(t, open(t, name, os.O_WRONLY|os.O_TRUNC).Close())
	check(t, f.Close())
	if got := read(t, name); got != "" {
		t.Errorf("after O_TRUNC the file holds %q", got)
	}
}

func TestOptionsForNewNodesAndPseudoFiles(t *testing.T) {
	mnt := startMount(t, sqliteVolume(t.TempDir(), "umask=027", "prefix-internal"))
	check(t, os.Mkdir(filepath.Join(mnt, "dir"), 0o777))
	write(t, filepath.Join(mnt, "file"), "text")
	check(t, unix.Mknod(filepath.Join(mnt, "fifo"), unix.S_IFIFO|0o666, 0))
	for name, want := range map[string]fs.FileMode{"dir": 0o750, "file": 0o640, "fifo": 0o640} {
		info, err := os.Stat(filepath.Join(mnt, name))
		check(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	if text := read(t, filepath.Join(mnt, ".jfs.config")); !strings.Contains(text, "testfs") {
		t.Errorf("the configuration is %q", text)
	}
	if _, err := os.Stat(filepath.Join(mnt, ".config")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the plain name: %v", err)
	}
}

func truncateUnlinked(t *testing.T, dir string) {
	f := create(t, filepath.Join(dir, "file"))
	defer f.Close()
	if _, err := f.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	check(t, os.Remove(f.Name()))
	check(t, f.Truncate(4))
	got := make([]byte, 10)
	if n, _ := f.ReadAt(got, 0); string(got[:n]) != "0123" {
		t.Errorf("the file holds %q", got[:n])
	}
}

func tinyWrites(t *testing.T, dir string) {
	f := create(t, filepath.Join(dir, "file"))
	defer f.Close()
	var want []byte
	for i := range 1<<16 + 5000 {
		want = append(want, byte(i>>8^i))
	}
	for i := range want {
		if _, err := f.Write(want[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, f.Name()); got != string(want) {
		t.Errorf("the file has %d bytes, want %d, or others", len(got), len(want))
	}
}
