package volume_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/mountpoint"
)

// hangingDirectory mounts a FUSE file system whose server answers INIT and nothing else, as one that has died while somebody
// still holds the connection. release ends the connection, so that what waits for it fails.
func hangingDirectory() (dir string, release func()) {
	GinkgoHelper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		Skip(fmt.Sprintf("needs /dev/fuse: %v", err))
	}
	var once sync.Once
	release = func() { once.Do(func() { _ = unix.Close(fd) }) }
	DeferCleanup(release)
	dir = GinkgoT().TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	Expect(unix.Mount("hanging", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options)).To(Succeed())
	DeferCleanup(mountpoint.Detach, dir)

	request := make([]byte, 1<<16)
	_, err = unix.Read(fd, request)
	Expect(err).NotTo(HaveOccurred())
	// linux/fuse.h: fuse_in_header and fuse_out_header carry the request's number at 8, fuse_init_out is 64 bytes long and
	// begins with the protocol's version.
	var answer bytes.Buffer
	for _, field := range []any{uint32(16 + 64), int32(0), binary.NativeEndian.Uint64(request[8:]), uint32(7), uint32(31), make([]byte, 12), uint32(1 << 16), make([]byte, 40)} {
		Expect(binary.Write(&answer, binary.NativeEndian, field)).To(Succeed())
	}
	Expect(answer.Len()).To(Equal(16 + 64))
	_, err = unix.Write(fd, answer.Bytes())
	Expect(err).NotTo(HaveOccurred())
	return dir, release
}

func bindOn(source, target string) {
	GinkgoHelper()
	Expect(os.MkdirAll(target, 0o755)).To(Succeed())
	Expect(unix.Mount(source, target, "", unix.MS_BIND, "")).To(Succeed())
}
