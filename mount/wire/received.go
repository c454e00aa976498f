package wire

import (
	"context"
	"fmt"
	"os"
	"sync"

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

// Discard closes files that the connection has brought, and does not wait for that longer than until ctx ends: closing a file of FUSE waits for its server, for ever if it
// likes. What is not closed then goes on by itself; see Settle.
func (c *Conn) Discard(ctx context.Context, files []*os.File) {
	await(ctx, c.closeEach(len(files), func(i int) { files[i].Close() }))
}

// Settle waits until all files are closed that were to be. Nobody receives any more. Whoever accepts connections from tenants counts one that is not settled, or a tenant could
// have every thread of this process close a file.
func (c *Conn) Settle() { c.closing.Wait() }

// closeEach closes n files and returns a channel that is closed afterwards. No file waits for another: one that is being closed has left the table of this process's files,
// one that waits would be closed by every child as well, inside its execve(2).
func (c *Conn) closeEach(n int, closeOne func(int)) <-chan struct{} {
	var each sync.WaitGroup
	for i := range n {
		each.Add(1)
		c.closing.Go(func() {
			defer each.Done()
			closeOne(i)
		})
	}
	closed := make(chan struct{})
	if n == 0 {
		close(closed)
		return closed
	}
	c.closing.Go(func() {
		each.Wait()
		close(closed)
	})
	return closed
}

func (c *Conn) closeNumbers(numbers []int) <-chan struct{} {
	return c.closeEach(len(numbers), func(i int) { unix.Close(numbers[i]) })
}

// await tells whether what closes the channel is done before ctx ends.
func await(ctx context.Context, closed <-chan struct{}) bool {
	select {
	case <-closed:
		return true
	case <-ctx.Done():
		return false
	}
}

// ownAll makes files of numbers. On error there are none. What is left to close is not waited for, as the files should not be kept for that; the next Receive waits.
func (c *Conn) ownAll(ctx context.Context, numbers []int) ([]*os.File, error) {
	var all []*os.File
	var spare []int
	var err error
	for i, number := range numbers {
		var f *os.File
		var left bool
		if f, left, err = own(number); err != nil {
			err = fmt.Errorf("take over a file: %w", err)
			spare = append(spare, numbers[i:]...)
			break
		}
		all = append(all, f)
		if left {
			spare = append(spare, number)
		}
	}
	c.spare = c.closeNumbers(spare)
	if err != nil {
		c.Discard(ctx, all)
		return nil, err
	}
	return all, nil
}

// own makes a file of a number, which stays the caller's if it is left, and on error. Only a pipe, which is a lease, may get to Go's poller.
//
// os.NewFile registers whatever is non-blocking with epoll, and epoll asks the file at once whether it is ready. A FUSE file passes that on as a request to its server,
// with the lock held that the whole process needs to learn of any readiness: one file would stop everything. Who has sent the file can make it non-blocking at
// any time, so its flags say nothing: the file object is made of something blocking first, and then the file is put in its place.
func own(number int) (f *os.File, left bool, err error) {
	pipe, err := isPipe(number)
	if err != nil {
		return nil, true, err
	}
	if pipe {
		return os.NewFile(uintptr(number), "received"), false, nil
	}
	place, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, true, err
	}
	f = os.NewFile(uintptr(place), "received")
	if err := retry(func() error { return unix.Dup3(number, place, unix.O_CLOEXEC) }); err != nil {
		f.Close()
		return nil, true, err
	}
	return f, true, nil
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
