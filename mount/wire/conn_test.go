package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a connection; the second one is raw, for what a Conn would not send.
func pair(t *testing.T) (*Conn, int) {
	t.Helper()
	c, other, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); other.Close() })
	return c, int(other.Fd())
}

// inherit makes a Conn of a raw end.
func inherit(t *testing.T, raw int) *Conn {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(raw), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Inherited(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestFilesTravel(t *testing.T) {
	c, raw := pair(t)
	other := inherit(t, raw)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m := Message{Type: Config, Volume: volume()}
	if err := other.Send(within(t), m, r, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	got, files, err := c.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(files)
	if got.Type != Config || len(files) != 2 || got.Volume.Secret["metaurl"] == "" {
		t.Fatalf("got %s with %d files", got.Type, len(files))
	}
	for _, f := range files {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("a received file is not close-on-exec: %v", err)
		}
	}
	if _, err := files[1].Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := r.Read(b); err != nil || b[0] != 'x' {
		t.Errorf("the file that arrived is not the one that was sent: %v", err)
	}
}

// A file that somebody closes while it is being sent keeps its number until it has been.
func TestSendHoldsItsFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	closed := make(chan struct{})
	err = holding([]*os.File{w, r}, nil, func(numbers []int) error {
		if len(numbers) != 2 {
			t.Fatalf("got %d numbers", len(numbers))
		}
		go func() {
			defer close(closed)
			r.Close()
		}()
		for r.SetReadDeadline(time.Time{}) == nil { // until it is being closed
			runtime.Gosched()
		}
		other, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if int(other.Fd()) == numbers[1] {
			t.Error("another file has got the number")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-closed
	c, _ := pair(t)
	if err := c.Send(within(t), Message{Type: Back, Request: 1}, r); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v for a closed file, want ErrClosed", err)
	}
}

func TestLargestVolumeFits(t *testing.T) {
	c, raw := pair(t)
	other := inherit(t, raw)
	v := volume()
	v.Secret["initconfig"] = strings.Repeat("x", MaxVolume)
	if err := other.Send(within(t), Message{Type: Update, Volume: v}); err != nil {
		t.Fatal(err)
	}
	got, _, err := c.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Volume.Secret["initconfig"]) != MaxVolume {
		t.Error("the volume arrived cut")
	}
}

func TestReceiveRefusesAndLeaksNothing(t *testing.T) {
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fds := func(n int) []byte {
		var list []int
		for range n {
			list = append(list, int(null.Fd()))
		}
		return unix.UnixRights(list...)
	}
	hello := []byte(`{"v":1,"type":"hello"}`)
	for name, send := range map[string]struct{ data, oob []byte }{
		"garbage":                 {[]byte{0, 1, 2, 255}, nil},
		"garbage with files":      {[]byte{0, 1, 2, 255}, fds(3)},
		"a file too many":         {hello, fds(1)},
		"files beyond the limit":  {hello, fds(maxFiles + 5)},
		"files beyond all limits": {hello, fds(200)},
		"too few files":           {[]byte(`{"v":1,"type":"attach","init":"AA==","answer":"AA=="}`), nil},
		"an oversize message":     {make([]byte, MaxMessage+1), fds(1)},
	} {
		t.Run(name, func(t *testing.T) {
			c, raw := pair(t)
			if err := unix.SetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*MaxMessage); err != nil && len(send.data) > MaxMessage {
				t.Skip("skipped: sending more than the limit needs CAP_NET_ADMIN: ", err)
			}
			before := openFiles(t)
			if err := unix.Sendmsg(raw, send.data, send.oob, nil, 0); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.Receive(within(t)); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want ErrProtocol", err)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d files are open, %d were", after, before)
			}
		})
	}
}

func TestReceiveEnds(t *testing.T) {
	c, raw := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, _, err := c.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	other := inherit(t, raw)
	if err := other.Send(within(t), Message{Type: Hello}); err != nil {
		t.Fatal(err)
	}
	if m, _, err := c.Receive(within(t)); err != nil || m.Type != Hello {
		t.Errorf("a cancelled connection does not work any more: %v", err)
	}
	other.Close()
	unix.Shutdown(raw, unix.SHUT_RDWR)
	if _, _, err := c.Receive(within(t)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestSendDoesNotWaitForever(t *testing.T) {
	c, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for {
		err := c.Send(ctx, Message{Type: Failed, Text: strings.Repeat("x", maxText)})
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenReplacesAndDialsLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "agent.sock")
	for range 2 {
		l, err := Listen(path, os.Getuid(), os.Getgid())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		accepted := make(chan *Conn, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		c, err := Dial(within(t), path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		server := <-accepted
		if server == nil {
			t.Fatal("nobody accepted")
		}
		defer server.Close()
		p, err := server.Peer()
		if err != nil || p.PID != os.Getpid() || p.UID != uint32(os.Getuid()) {
			t.Errorf("peer %+v, %v", p, err)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestAcceptEndsWithClose(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "s"), os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Accept hangs")
	}
}

func TestInheritedRefusesOtherFiles(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Inherited(int(f.Fd())); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
}
