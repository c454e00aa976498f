package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// Options of a mount.
type Options struct {
	// Kind decides the features of the connection and the subtype that mount tables show.
	Kind mount.ClientKind
	// Source is what mount tables show as the device.
	Source string
	// UID and GID own the mount: the identity that the client runs with.
	UID, GID uint32
	// ReadOnly makes the kernel refuse writes with EROFS.
	ReadOnly bool
	// NoResend treats the kernel as one before Linux 6.9. Default false: the kernel says what it can.
	NoResend bool
}

// Connection is a FUSE connection that is mounted and has agreed on INIT.
type Connection struct {
	// Device is the caller's to close. The kernel ends the connection when its last duplicate is closed.
	Device *os.File
	// Init and Answer are the bytes of the handshake.
	Init, Answer []byte
}

// Mount makes a FUSE mount at target. INIT is answered before anybody can see the mount, so nothing that uses it can meet a half-made connection.
// The mount always has nosuid and nodev, lets other users in, and leaves permission checks to the kernel, because the client serves
// everybody with one identity. It needs CAP_SYS_ADMIN and Linux 5.2.
func Mount(ctx context.Context, target string, o Options) (c *Connection, err error) {
	features, err := FeaturesOf(o.Kind)
	if err != nil {
		return nil, err
	}
	dev, err := OpenDevice()
	if err != nil {
		return nil, err
	}
	// Closing the only file of a connection ends it, and its superblock goes with the detached mount below.
	defer func() {
		if err != nil {
			dev.Close()
		}
	}()
	tree, err := newTree(dev, o, features)
	if err != nil {
		return nil, err
	}
	defer unix.Close(tree)
	c = &Connection{Device: dev}
	if c.Init, err = ReadInit(ctx, dev); err != nil {
		return nil, err
	}
	if o.NoResend {
		c.Init = withoutResend(c.Init)
	}
	if c.Answer, err = Negotiate(o.Kind, c.Init); err != nil {
		return nil, err
	}
	if err = WriteAnswer(dev, c.Answer); err != nil {
		return nil, err
	}
	if err = unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("mount at %s: %w", target, err)
	}
	return c, nil
}

// newTree makes the superblock and a detached mount of it.
func newTree(dev *os.File, o Options, f Features) (int, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen fuse: %w", err)
	}
	defer unix.Close(fs)
	for _, p := range []struct{ key, value string }{
		{"source", o.Source},
		{"subtype", string(o.Kind)},
		{"fd", strconv.Itoa(int(dev.Fd()))},
		{"rootmode", "40000"},
		{"user_id", strconv.FormatUint(uint64(o.UID), 10)},
		{"group_id", strconv.FormatUint(uint64(o.GID), 10)},
		{"max_read", strconv.FormatUint(uint64(f.MaxWrite), 10)},
	} {
		if err := unix.FsconfigSetString(fs, p.key, p.value); err != nil {
			return -1, fmt.Errorf("fsconfig %s=%s: %w", p.key, p.value, err)
		}
	}
	for _, flag := range []string{"allow_other", "default_permissions"} {
		if err := unix.FsconfigSetFlag(fs, flag); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", flag, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create the superblock: %w", err)
	}
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if o.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return tree, nil
}

// Unmount detaches every FUSE mount at target; nothing there is success. It does not wait for the client, but a busy mount lives on until its
// last user has gone: abort the connection first where that cannot be waited for.
func Unmount(target string) error {
	const stacked = 64 // far more mounts than anybody puts on top of each other; it only ends the loop
	for range stacked {
		_, err := Find(target)
		if errors.Is(err, ErrNotMounted) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	return fmt.Errorf("unmount %s: still mounted after %d times", target, stacked)
}
