package fuse

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// minReadBuffer is the smallest buffer that the device accepts (FUSE_MIN_READ_BUFFER).
const minReadBuffer = 8192

// notifyResend is the code of FUSE_NOTIFY_RESEND.
const notifyResend = 7

// OpenDevice opens /dev/fuse. The file becomes a connection when it is mounted.
func OpenDevice() (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// ReadInit takes the first request of a new connection, which must be INIT, and returns its bytes.
func ReadInit(ctx context.Context, dev *os.File) ([]byte, error) {
	if err := waitReadable(ctx, dev); err != nil {
		return nil, fmt.Errorf("wait for INIT: %w", err)
	}
	b := make([]byte, minReadBuffer)
	n, err := unix.Read(int(dev.Fd()), b)
	if err != nil {
		return nil, fmt.Errorf("read INIT: %w", err)
	}
	if _, err := ParseInit(b[:n]); err != nil {
		return nil, err
	}
	return b[:n:n], nil
}

// waitReadable polls in slices, so that a cancelled ctx is seen although poll(2) knows nothing of it.
func waitReadable(ctx context.Context, dev *os.File) error {
	const slice = 100 * time.Millisecond
	p := []unix.PollFd{{Fd: int32(dev.Fd()), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		n, err := unix.Poll(p, int(slice.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// WriteAnswer gives the kernel the answer to INIT; from then on the mount takes requests.
func WriteAnswer(dev *os.File, answer []byte) error {
	if _, err := unix.Write(int(dev.Fd()), answer); err != nil {
		return fmt.Errorf("answer INIT: %w", err)
	}
	return nil
}

// Resend makes the kernel put everything that was taken but not answered back into the queue, marked with bit 63 of its unique number. It must
// not be called while the client that took the requests may still answer.
func Resend(dev *os.File) error {
	var b [outHeaderSize]byte
	binary.NativeEndian.PutUint32(b[0:], outHeaderSize)
	binary.NativeEndian.PutUint32(b[4:], notifyResend)
	if _, err := unix.Write(int(dev.Fd()), b[:]); err != nil {
		return fmt.Errorf("ask for the requests of a dead client: %w", err)
	}
	return nil
}

// Connected tells whether the connection still exists: nobody has aborted it, and its mount has not gone.
func Connected(dev *os.File) bool {
	p := []unix.PollFd{{Fd: int32(dev.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && p[0].Revents&unix.POLLERR == 0
	}
}

// DeviceOf returns the number of the connection that a file belongs to, as Entry.Device has it. Kernels that do not tell (before 6.18) are not an error: known
// is false.
func DeviceOf(dev *os.File) (device uint32, known bool) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(dev.Fd())))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "fuse_connection:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

// IsDevice tells whether a file that came from somebody else is the FUSE device.
func IsDevice(f *os.File) bool {
	const misc, fuseMinor = 10, 229
	st, err := Identify(f)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev_major == misc && st.Rdev_minor == fuseMinor
}

// Identify returns of a file that came from somebody else what is known without asking its file system: fstat(2) would ask a tenant's own server, which may never answer.
// Type and device number are true, all else may be old.
func Identify(f *os.File) (unix.Statx_t, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
		if err != unix.EINTR {
			return st, err
		}
	}
}
