package wire

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Files that a message brings come from somebody who may be a tenant, and may be files of a file system that the tenant serves itself. What is asked of such a file before
// anybody has judged it must not reach that file system: it might never answer.

// parseRights collects every file of every control message before it judges any, so that none can be missed.
func parseRights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", ErrProtocol)
	}
	var got []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		got = append(got, fds...)
	}
	return got, nil
}

// ownAll makes files of numbers. On error all numbers are closed.
func ownAll(numbers []int) ([]*os.File, error) {
	var all []*os.File
	for i, number := range numbers {
		f, err := own(number)
		if err != nil {
			CloseAll(all)
			closeNumbers(numbers[i:])
			return nil, fmt.Errorf("take over a file: %w", err)
		}
		all = append(all, f)
	}
	return all, nil
}

// own makes a file of a number, which stays the caller's on error. Only a pipe, which is a lease, may get to Go's poller.
//
// os.NewFile registers whatever is non-blocking with epoll, and epoll asks the file at once whether it is ready. A FUSE file passes that on as a request to its server,
// with the lock held that the whole process needs to learn of any readiness: one file would stop everything. Who has sent the file can make it non-blocking at
// any time, so its flags say nothing: the file object is made of something blocking first, and then the file is put in its place.
func own(number int) (*os.File, error) {
	pipe, err := isPipe(number)
	if err != nil {
		return nil, err
	}
	if pipe {
		return os.NewFile(uintptr(number), "received"), nil
	}
	place, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(place), "received")
	if err := retry(func() error { return unix.Dup3(number, place, unix.O_CLOEXEC) }); err != nil {
		f.Close()
		return nil, err
	}
	unix.Close(number)
	return f, nil
}

// isPipe asks for nothing but the type, which is known without asking the file system and never changes.
func isPipe(number int) (bool, error) {
	var st unix.Statx_t
	if err := retry(func() error {
		return unix.Statx(number, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	}); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFIFO, nil
}

func closeNumbers(numbers []int) {
	for _, number := range numbers {
		unix.Close(number)
	}
}
