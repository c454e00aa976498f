package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// With FUSE passthrough the kernel reads and writes a file by itself, also while no client runs. Registering such a file needs a privilege that the client has not, so
// it asks here. It gets nothing that it could not have done with the file, one request at a time: see admitBacking.

// backings are the numbers of the backing files that this broker has registered or heard of.
type backings struct {
	mu      sync.Mutex // held also while the kernel is told, so that nobody takes back what another message is about
	numbers map[int32]bool
	// asking has room for one question to a file system that may never answer it.
	asking chan struct{}
}

func newBackings() backings {
	return backings{numbers: map[int32]bool{}, asking: make(chan struct{}, 1)}
}

// onBacking handles what an agent passes on about backing files, and tells whether the message was of that kind. Only the agent that serves has anything to say: a
// client that stands by has no handles, and one that has been replaced has none any more.
func (s *session) onBacking(ctx context.Context, a *agent, m wire.Message, got []*os.File) bool {
	switch m.Type {
	case wire.Back, wire.Unback, wire.Known:
	default:
		return false
	}
	s.mu.Lock()
	held, answer, serves := s.files, s.answer, s.agent == a
	s.mu.Unlock()
	if held == nil || !serves {
		if m.Type == wire.Back {
			s.answerBack(ctx, a, m.Request, 0, mount.ErrRefused)
		}
		return true
	}
	s.backings.mu.Lock()
	defer s.backings.mu.Unlock()
	switch m.Type {
	case wire.Back:
		number, err := s.back(ctx, held.device, answer, got[0])
		if !s.answerBack(ctx, a, m.Request, number, err) && err == nil {
			s.unback(held.device, []int32{number})
		}
	case wire.Unback:
		s.unback(held.device, m.Backings)
	case wire.Known:
		s.know(held.device, m.Backings)
	}
	return true
}

// answerBack tells the client the number of its file, or why there is none, and whether it could be told.
func (s *session) answerBack(ctx context.Context, a *agent, request uint64, number int32, err error) bool {
	m := wire.Message{Type: wire.Backed, Request: request, Backing: number}
	if err != nil {
		m.Text = err.Error()
		s.log.WithError(err).Debug("refused a backing file")
	}
	return a.tell(ctx, m) == nil
}

// back registers a file for the session's client.
func (s *session) back(ctx context.Context, device *os.File, answer []byte, f *os.File) (int32, error) {
	if !fuse.CanPassthrough(answer) {
		return 0, fmt.Errorf("the session has not agreed on passthrough: %w", mount.ErrRefused)
	}
	if len(s.backings.numbers) >= wire.MaxBackings {
		return 0, fmt.Errorf("the session has %d backing files: %w", len(s.backings.numbers), mount.ErrRefused)
	}
	b, err := s.backings.inspect(ctx, f)
	if err != nil {
		return 0, err
	}
	if err := admitBacking(b); err != nil {
		return 0, err
	}
	number, err := fuse.OpenBacking(device, f, s.request.UID, s.request.GID)
	if err != nil {
		return 0, err
	}
	s.backings.numbers[number] = true
	return number, nil
}

// unback takes numbers back. One that this broker does not know may be from before its start.
func (s *session) unback(device *os.File, numbers []int32) {
	for _, number := range numbers {
		delete(s.backings.numbers, number)
		if err := fuse.CloseBacking(device, number); err != nil && !errors.Is(err, unix.ENOENT) {
			s.log.WithError(err).Warn("take a backing file back")
		}
	}
}

// know takes back what the clients before have registered and the new one knows nothing of: they died between the registration and their note of it.
func (s *session) know(device *os.File, numbers []int32) {
	known := make(map[int32]bool, len(numbers))
	for _, number := range numbers {
		known[number] = true
	}
	var lost []int32
	for number := range s.backings.numbers {
		if !known[number] {
			lost = append(lost, number)
		}
	}
	s.unback(device, lost)
	s.backings.numbers = known
}

// backing is what the policy has to know of a file.
type backing struct {
	mode     uint32 // st_mode
	flags    int    // of the open file
	readOnly bool   // its mount, or the whole file system; known of a file that is open for reading
}

func (s *backings) inspect(ctx context.Context, f *os.File) (backing, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return backing{}, fmt.Errorf("look at a backing file: %w", err)
	}
	if flags&unix.O_PATH != 0 {
		return backing{flags: flags}, nil
	}
	st, err := fuse.Identify(f)
	if err != nil {
		return backing{}, fmt.Errorf("look at a backing file: %w", err)
	}
	b := backing{mode: uint32(st.Mode), flags: flags}
	if flags&unix.O_ACCMODE == unix.O_RDONLY && b.mode&unix.S_IFMT == unix.S_IFREG {
		b.readOnly, err = s.isReadOnly(ctx, f)
	}
	return b, err
}

// isReadOnly asks the file's file system, which may be one that a tenant serves: the question has a deadline, and as long as one is not answered no other is asked.
func (s *backings) isReadOnly(ctx context.Context, f *os.File) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	select {
	case s.asking <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("the file system of an earlier backing file does not answer: %w", mount.ErrRefused)
	}
	var fs unix.Statfs_t
	answered := make(chan error, 1)
	go func() {
		defer func() { <-s.asking }()
		raw, err := f.SyscallConn()
		if err == nil {
			var failed error
			err = raw.Control(func(fd uintptr) { failed = unix.Fstatfs(int(fd), &fs) })
			err = errors.Join(err, failed)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			return false, fmt.Errorf("look at a backing file's file system: %w", err)
		}
		return fs.Flags&unix.ST_RDONLY != 0, nil
	case <-ctx.Done():
		return false, fmt.Errorf("the file system of a backing file does not answer: %w", mount.ErrRefused)
	}
}

// admitBacking is the policy about backing files. The kernel opens the file again with whatever access the application has asked for and checks no permission, so the
// client must have shown that it has all of them: by a file that is open for reading and writing at any place. A file that is open for reading is enough where nobody
// can open it for writing.
func admitBacking(b backing) error {
	const denied = unix.O_PATH | unix.O_APPEND
	access := b.flags & unix.O_ACCMODE
	switch {
	case b.flags&denied != 0:
		return fmt.Errorf("backing file is not open for reading and writing everywhere: %w", mount.ErrRefused)
	case b.mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("backing file is not a regular file: %w", mount.ErrRefused)
	case access == unix.O_RDWR, access == unix.O_RDONLY && b.readOnly:
		return nil
	}
	return fmt.Errorf("backing file is not open for reading and writing: %w", mount.ErrRefused)
}
