package broker

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/fuse/fusetest"
)

func TestReleased(t *testing.T) {
	hold, watch, err := newLease()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	if !isLease(watch) || isLease(hold) {
		t.Error("a lease is not told from its other end")
	}
	// The pipe is shared with a tenant, who may do this.
	if err := unix.SetNonblock(int(watch.Fd()), false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := released(ctx, watch); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	freed := make(chan error, 1)
	go func() { freed <- released(t.Context(), watch) }()
	hold.Close()
	if err := <-freed; err != nil {
		t.Error(err)
	}
}

func TestReleasedRefusesALeaseThatIsWrittenTo(t *testing.T) {
	hold, watch, err := newLease()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	defer hold.Close()
	if _, err := hold.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := released(t.Context(), watch); err == nil {
		t.Error("it counts as released")
	}
}

// What an agent sends may be of a file system that the tenant serves, and does not answer for.
func TestForeignFilesAreJudgedWithoutTheirServer(t *testing.T) {
	fs := fusetest.New(t)
	number, err := fs.Open(unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(number), "foreign")
	defer f.Close()
	asked := fs.Asked(fusetest.GetAttr) + fs.Asked(fusetest.StatFS)
	if isLease(f) || isMemory(f) || fuse.IsDevice(f) {
		t.Error("a file passes for what it is not")
	}
	if now := fs.Asked(fusetest.GetAttr) + fs.Asked(fusetest.StatFS); now != asked {
		t.Errorf("its server was asked %d times", now-asked)
	}
}
