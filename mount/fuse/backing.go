package fuse

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of FUSE passthrough, <linux/fuse.h> (Linux 6.9).
const (
	backingOpen  = 0x4010e501 // FUSE_DEV_IOC_BACKING_OPEN
	backingClose = 0x4004e502 // FUSE_DEV_IOC_BACKING_CLOSE
)

// backingMap is struct fuse_backing_map.
type backingMap struct {
	file    int32
	flags   uint32
	padding uint64
}

// OpenBacking registers a file with a connection. A client that answers OPEN with the number that it returns has the kernel read and write this file itself. The
// number lives in the connection until CloseBacking; the file may be closed at once.
//
// The kernel opens the file again for every handle, without looking at permissions, and does the reading and writing with the credentials that this process has now.
// So it is given those of an unprivileged owner: uid and gid, and no capability that has to do with files. It needs CAP_SYS_ADMIN. ELOOP means that the
// file lies on a file system that is stacked on another one itself.
func OpenBacking(device, backing *os.File, uid, gid uint32) (number int32, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		back, failed := confine(uid, gid)
		if failed == nil {
			number, failed = ioctlBacking(device, backing)
		}
		err = failed
		if back() == nil {
			runtime.UnlockOSThread() // else the thread ends with this function, and nobody else gets it
		}
	}()
	<-ended
	return number, err
}

func ioctlBacking(device, backing *os.File) (number int32, err error) {
	m := backingMap{file: int32(backing.Fd())}
	err = control(device, func(fd uintptr) unix.Errno {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, backingOpen, uintptr(unsafe.Pointer(&m)))
		number = int32(n)
		return errno
	})
	runtime.KeepAlive(backing)
	if err != nil {
		return 0, fmt.Errorf("register a backing file: %w", err)
	}
	return number, nil
}

// CloseBacking takes a number back. Handles that are open with it stay as they are. ENOENT means that there is no such number.
func CloseBacking(device *os.File, number int32) error {
	err := control(device, func(fd uintptr) unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, backingClose, uintptr(unsafe.Pointer(&number)))
		return errno
	})
	if err != nil {
		return fmt.Errorf("take a backing file back: %w", err)
	}
	return nil
}

// control runs a call on a file that somebody else may close meanwhile.
func control(f *os.File, call func(fd uintptr) unix.Errno) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) { errno = call(fd) }); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// confine gives this thread, which must be locked, the file credentials of somebody else and CAP_SYS_ADMIN as its only effective capability. The function that it
// returns undoes that; it must run also after an error.
func confine(uid, gid uint32) (back func() error, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		return func() error { return nil }, fmt.Errorf("look at this thread's capabilities: %w", err)
	}
	fsuid, fsgid := unix.Geteuid(), unix.Getegid()
	back = func() error {
		err := errors.Join(setFileIdentity(uint32(fsuid), uint32(fsgid)), unix.Capset(&header, &before[0]))
		if err != nil {
			return fmt.Errorf("take this thread's credentials back: %w", err)
		}
		return nil
	}
	if err := setFileIdentity(uid, gid); err != nil {
		return back, err
	}
	only := before
	only[0].Effective, only[1].Effective = before[0].Effective&(1<<unix.CAP_SYS_ADMIN), 0
	if err := unix.Capset(&header, &only[0]); err != nil {
		return back, fmt.Errorf("put capabilities aside: %w", err)
	}
	return back, nil
}

// setFileIdentity sets the thread's fsuid and fsgid. The calls return the value before and no error, so a second call tells what the first has done.
func setFileIdentity(uid, gid uint32) error {
	const ask = ^uintptr(0)
	var nowUID, nowGID uintptr
	for _, to := range []uintptr{uintptr(gid), ask} {
		nowGID, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, to, 0, 0)
	}
	for _, to := range []uintptr{uintptr(uid), ask} {
		nowUID, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, to, 0, 0)
	}
	if uint32(nowUID) != uid || uint32(nowGID) != gid {
		return fmt.Errorf("take the file identity %d:%d: %w", uid, gid, unix.EPERM)
	}
	return nil
}
