package preflight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
)

// Linux 5.12 has mount_setattr(2), by which a bind is read-only from its first moment; everything else that we call is older.
const needMajor, needMinor = 5, 12

// Kernel is what the kernel's FUSE offers.
type Kernel struct {
	// Resend: requests that a dead client had taken can be sent again (Linux 6.9).
	Resend bool
	// Passthrough: the kernel can read and write a passthrough volume's files by itself (Linux 6.9).
	Passthrough bool
}

// kernel compares the version. What the kernel can really do is asked by the check after it; a version is what people can change.
func (h *Host) kernel(context.Context) Result {
	const check = "kernel"
	text, err := os.ReadFile(h.path("/proc/sys/kernel/osrelease"))
	if err != nil {
		return unread(check, err)
	}
	release := strings.TrimSpace(string(text))
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return missing(check, "release "+release, "a kernel whose release begins with a version")
	}
	if major < needMajor || major == needMajor && minor < needMinor {
		return missing(check, "Linux "+release, fmt.Sprintf("Linux %d.%d or newer; 6.9 to survive the death of a client without EINTR", needMajor, needMinor))
	}
	return ok(check, "Linux %s", release)
}

// device looks for the device; a mount is the next check.
func (h *Host) device(context.Context) Result {
	const check = "/dev/fuse"
	const cure = "modprobe fuse, and write fuse into /etc/modules-load.d/fuse.conf; in a container, privileged: true"
	info, err := os.Stat(h.path("/dev/fuse"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing(check, "not there", cure)
	case err != nil:
		return unread(check, err)
	case info.Mode()&os.ModeCharDevice == 0:
		return missing(check, "not a device", cure)
	}
	return ok(check, "there")
}

// fuse makes a mount and asks what the kernel can do.
func (h *Host) fuse(ctx context.Context) Result {
	const check = "FUSE"
	found, err := h.o.FUSE(ctx)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return missing(check, err.Error(), "run it as root; a security module or a device policy may be in the way: see the kernel's log")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return missing(check, err.Error(), "modprobe fuse")
	case err != nil:
		return missing(check, err.Error(), "see the error; `dmesg` may tell more")
	case !found.Resend:
		return warning(check, "mounts; requests of a dead client cannot be sent again", "Linux 6.9 or newer; until then such calls end with EINTR (docs/recovery.md)")
	case !found.Passthrough:
		return ok(check, "mounts, sends requests again")
	}
	return ok(check, "mounts, sends requests again, passes reads and writes through")
}

// control opens what aborts a hung connection.
func (h *Host) control(context.Context) Result {
	const check = "fusectl"
	if err := h.o.Control(); err != nil {
		return missing(check, err.Error(), "a kernel with fusectl (CONFIG_FUSE_FS); without it a hung mount could not be ended")
	}
	return ok(check, "opens")
}

// TryControl opens the control file system of FUSE and closes it.
func TryControl() error {
	c, err := fuse.OpenControl()
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// TryFUSE makes a FUSE mount in a mount namespace of its own, where nobody can meet it, and ends it.
func TryFUSE(ctx context.Context) (Kernel, error) {
	type answer struct {
		kernel Kernel
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		// The thread ends with the goroutine, because it is not unlocked, and the namespace with the thread.
		runtime.LockOSThread()
		kernel, err := tryFUSE(ctx)
		answers <- answer{kernel, err}
	}()
	a := <-answers
	return a.kernel, a.err
}

func tryFUSE(ctx context.Context) (k Kernel, err error) {
	dir, err := os.MkdirTemp("", "sidemount-preflight-")
	if err != nil {
		return k, fmt.Errorf("make a mount point: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return k, fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return k, fmt.Errorf("make the mounts of the namespace private: %w", err)
	}
	c, err := fuse.Mount(ctx, dir, fuse.Options{Kind: mount.Passthrough, Source: "preflight"})
	if err != nil {
		return k, err
	}
	k = Kernel{Resend: fuse.CanResend(c.Init), Passthrough: fuse.CanPassthrough(c.Answer)}
	// With the device the connection ends, so that nothing of it can hang.
	return k, errors.Join(c.Device.Close(), unix.Unmount(dir, unix.MNT_DETACH))
}

// fields reads a file of lines "Key: value".
func (h *Host) fields(path string) (map[string]string, error) {
	text, err := os.ReadFile(h.path(path))
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range bytes.Lines(text) {
		if key, value, ok := strings.Cut(string(line), ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields, nil
}
