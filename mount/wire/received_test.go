package wire

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse/fusetest"
)

// A file of a tenant's own file system must be of no consequence until somebody asks something of it: epoll would send POLL, and nothing of this process would learn of any
// readiness until it is answered.
func TestReceivedFileIsNotPolled(t *testing.T) {
	fs := fusetest.New(t)
	number, err := fs.Open(unix.O_RDWR | unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(number)
	c, raw := pair(t)
	asked := fs.Asked(fusetest.GetAttr)
	if err := unix.Sendmsg(raw, []byte(`{"v":1,"type":"back","request":1}`), unix.UnixRights(number), nil, 0); err != nil {
		t.Fatal(err)
	}
	_, files, err := c.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(files)
	if n := fs.Asked(fusetest.Poll); n != 0 {
		t.Errorf("the file system was asked for readiness %d times", n)
	}
	if n := fs.Asked(fusetest.GetAttr); n != asked {
		t.Errorf("the file system was asked for attributes %d times", n-asked)
	}
	flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: not the file that was sent", flags, err)
	}
	if n := fs.Asked(fusetest.Poll); n != 0 {
		t.Errorf("the file system was asked for readiness %d times by using the file", n)
	}
}

// A tenant's server that does not answer when a file is closed keeps the connection that brought it, and nothing else.
func TestReceivedFileThatCannotBeClosed(t *testing.T) {
	number := -1
	var conns []*Conn
	t.Cleanup(func() { // when the file system has ended
		unix.Close(number)
		for _, c := range conns {
			c.Settle()
		}
	})
	fs := fusetest.New(t, fusetest.Flush)
	number, err := fs.Open(unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string]string{"a good message": `{"v":1,"type":"back","request":1}`, "a bad one": `{"v":1,"type":"hello"}`, "no message": `{`} {
		c, raw := pair(t)
		conns = append(conns, c)
		if err := unix.Sendmsg(raw, []byte(message), unix.UnixRights(number), nil, 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, files, err := c.Receive(ctx)
		if good := name == "a good message"; (err == nil) != good {
			t.Errorf("%s: got %d files, %v", name, len(files), err)
		}
		c.Discard(ctx, files)
		if _, _, err := c.Receive(ctx); err == nil {
			t.Errorf("%s: another message was received", name)
		}
	}
	for ctx := within(t); fs.Asked(fusetest.Flush) < len(conns); runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatalf("%d files are being closed", fs.Asked(fusetest.Flush))
		}
	}
}

func TestReceivedLeaseHasDeadlines(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	c, raw := pair(t)
	if err := unix.Sendmsg(raw, []byte(`{"v":1,"type":"back","request":1}`), unix.UnixRights(fds[0]), nil, 0); err != nil {
		t.Fatal(err)
	}
	_, files, err := c.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(files)
	if err := files[0].SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := files[0].Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
}
