package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	kernel "github.com/sidemount/sidemount/mount/fuse"
)

var kinds = []mount.ClientKind{mount.JuiceFS, mount.Passthrough}

// initRequest is what a kernel asks that offers some features.
func initRequest(flags kernel.Flags) []byte {
	b := make([]byte, 104)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], 26)
	binary.NativeEndian.PutUint64(b[8:], 2)
	binary.NativeEndian.PutUint32(b[40:], 7)
	binary.NativeEndian.PutUint32(b[44:], 45)
	binary.NativeEndian.PutUint32(b[48:], 128<<10)
	binary.NativeEndian.PutUint32(b[52:], uint32(flags))
	binary.NativeEndian.PutUint32(b[56:], uint32(flags>>32))
	return b
}

// offers are those of Linux 6.18, of an old kernel, and of one that has everything.
var offers = map[string]kernel.Flags{
	"6.18": kernel.Flags(0x73fffffb) | kernel.Flags(0x5fd)<<32,
	"old":  kernel.AsyncRead | kernel.BigWrites | kernel.FileOps | kernel.PosixLocks | kernel.InitExt,
	"all":  ^kernel.Flags(0),
}

// answerOf has go-fuse answer an INIT request.
func answerOf(t *testing.T, kind mount.ClientKind, init []byte) []byte {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if _, err := unix.Write(pair[1], init); err != nil {
		t.Fatal(err)
	}
	o, err := MountOptions(kind)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fuse.NewServer(fuse.NewDefaultRawFileSystem(), "/dev/fd/"+strconv.Itoa(pair[0]), o); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := unix.Read(pair[1], b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// The broker answers INIT before any client exists. go-fuse must answer the same, byte for byte, to the kernel's request and to the replayed one.
func TestBrokerAndGoFuseAgree(t *testing.T) {
	for _, kind := range kinds {
		for name, offer := range offers {
			t.Run(string(kind)+"/"+name, func(t *testing.T) {
				init := initRequest(offer)
				agreed, err := kernel.Negotiate(kind, init)
				if err != nil {
					t.Fatal(err)
				}
				replay, err := kernel.Replay(init, agreed)
				if err != nil {
					t.Fatal(err)
				}
				for what, request := range map[string][]byte{"the kernel's INIT": init, "the replayed INIT": replay} {
					if got := answerOf(t, kind, request); !bytes.Equal(got, agreed) {
						t.Errorf("%s: %v", what, disagreement(got, agreed))
					}
				}
			})
		}
	}
}

func TestAttachPutsTheConnectionInPlace(t *testing.T) {
	init := initRequest(offers["6.18"])
	agreed, err := kernel.Negotiate(mount.Passthrough, init)
	if err != nil {
		t.Fatal(err)
	}
	o, err := MountOptions(mount.Passthrough)
	if err != nil {
		t.Fatal(err)
	}
	// A socket stands for the device: one request is answered through it.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dev := os.NewFile(uintptr(pair[0]), "device")
	server, err := attach(fuse.NewDefaultRawFileSystem(), dev, init, agreed, o)
	if err != nil {
		t.Fatal(err)
	}
	dev.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve()
	}()
	statfs := make([]byte, 40)
	binary.NativeEndian.PutUint32(statfs[0:], 40)
	binary.NativeEndian.PutUint32(statfs[4:], 17)
	binary.NativeEndian.PutUint64(statfs[8:], 4)
	if _, err := unix.Write(pair[1], statfs); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	if _, err := unix.Read(pair[1], b); err != nil {
		t.Fatal(err)
	}
	if unique := binary.NativeEndian.Uint64(b[8:]); unique != 4 {
		t.Errorf("answered request %d, want 4", unique)
	}
	unix.Close(pair[1])
	<-ended
}

func TestAttachRefusesAnotherAgreement(t *testing.T) {
	init := initRequest(offers["6.18"])
	agreed, err := kernel.Negotiate(mount.JuiceFS, init)
	if err != nil {
		t.Fatal(err)
	}
	o, err := MountOptions(mount.JuiceFS)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxWrite = 64 << 10
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := attach(fuse.NewDefaultRawFileSystem(), null, init, agreed, o); !errors.Is(err, ErrHandshake) {
		t.Errorf("got %v, want ErrHandshake", err)
	}
}

func TestReadBuffersArePresent(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if _, err := unix.Write(pair[1], initRequest(0)); err != nil {
		t.Fatal(err)
	}
	server, err := fuse.NewServer(fuse.NewDefaultRawFileSystem(), filepath.Join("/dev/fd", strconv.Itoa(pair[0])), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := presentBuffers(server); err != nil {
		t.Fatal(err)
	}
}
