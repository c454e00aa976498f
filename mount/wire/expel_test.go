package wire

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse/fusetest"
)

// filesAt counts the regular files of this process that lie in a file system.
func filesAt(t *testing.T, major, minor uint32) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if mode, at, err := locate(number); err == nil && mode&unix.S_IFMT == unix.S_IFREG && at.major == major && at.minor == minor {
			n++
		}
	}
	return n
}

// A child that had such a file would wait for its server inside execve, and this process for the child.
func TestFilesOfATenantsServerAreGoneBeforeAChildCanBeMade(t *testing.T) {
	fs := fusetest.New(t, fusetest.Flush)
	number, err := fs.Open(unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	_, at, err := locate(number)
	if err != nil {
		t.Fatal(err)
	}
	c, raw := pair(t)
	c.Expel(func(major, minor uint32) bool { return major == at.major && minor == at.minor })
	if err := unix.Sendmsg(raw, []byte(`{"v":1,"type":"back","request":1}`), unix.UnixRights(number), nil, 0); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- unix.Close(number) }() // the sender's own
	for ctx := within(t); filesAt(t, at.major, at.minor) > 0; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatal("the sender keeps its file")
		}
	}
	m, files, err := c.Receive(within(t))
	if err != nil || m.Type != Back {
		t.Fatalf("got %s, %v: the message itself is as good as any", m.Type, err)
	}
	defer CloseAll(files)
	if n := filesAt(t, at.major, at.minor); n != 0 {
		t.Fatalf("%d files of the tenant's file system are there", n)
	}
	if out, err := exec.CommandContext(within(t), "true").CombinedOutput(); err != nil {
		t.Errorf("a child: %v: %s", err, out)
	}
	if mode, _, err := locate(int(files[0].Fd())); err != nil || mode&unix.S_IFMT == unix.S_IFREG {
		t.Errorf("the file in its place has mode %o, %v", mode, err)
	}
	select {
	case err := <-closed:
		t.Errorf("the file could be closed, %v: this test shows nothing", err)
	default:
	}
}

func TestFilesOfOtherFileSystemsStay(t *testing.T) {
	c, raw := pair(t)
	c.Expel(func(uint32, uint32) bool { return false })
	f, err := os.CreateTemp(t.TempDir(), "file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Sendmsg(raw, []byte(`{"v":1,"type":"back","request":1}`), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	_, files, err := c.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(files)
	mine, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := files[0].Stat(); err != nil || !os.SameFile(got, mine) {
		t.Errorf("another file has come: %v, %v", got, err)
	}
}
