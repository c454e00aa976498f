package broker

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// With FUSE passthrough the kernel reads and writes a file by itself, also while no client runs. Registering such a file needs a privilege that the client has not, so
// it asks here. It gets nothing that it could not have done with the file, one request at a time: see admitBacking.

// onBack registers a file for the session's client, or tells it why not.
func (s *session) onBack(ctx context.Context, a *agent, request uint64, f *os.File) {
	answer := wire.Message{Type: wire.Backed, Request: request}
	number, err := s.back(f)
	if err != nil {
		answer.Text = err.Error()
		s.log.WithError(err).Debug("refused a backing file")
	}
	answer.Backing = number
	if err := a.tell(ctx, answer); err != nil && number > 0 {
		s.onUnback([]int32{number})
	}
}

func (s *session) back(f *os.File) (int32, error) {
	if !fuse.CanPassthrough(s.agreement()) {
		return 0, fmt.Errorf("the session has not agreed on passthrough: %w", mount.ErrRefused)
	}
	if len(s.backings) >= wire.MaxBackings {
		return 0, fmt.Errorf("the session has %d backing files: %w", len(s.backings), mount.ErrRefused)
	}
	b, err := inspect(f)
	if err != nil {
		return 0, err
	}
	if err := admitBacking(b); err != nil {
		return 0, err
	}
	s.mu.Lock()
	held := s.files
	s.mu.Unlock()
	if held == nil {
		return 0, mount.ErrClosed
	}
	number, err := fuse.OpenBacking(held.device, f, s.request.UID, s.request.GID)
	if err != nil {
		return 0, err
	}
	s.backings[number] = true
	return number, nil
}

func (s *session) agreement() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer
}

// onUnback takes numbers back. One that this broker does not know may be from before its start.
func (s *session) onUnback(numbers []int32) {
	s.mu.Lock()
	held := s.files
	s.mu.Unlock()
	for _, number := range numbers {
		delete(s.backings, number)
		if held == nil {
			continue
		}
		if err := fuse.CloseBacking(held.device, number); err != nil && !errors.Is(err, unix.ENOENT) {
			s.log.WithError(err).Warn("take a backing file back")
		}
	}
}

// onKnown takes back what the clients before have registered and the new one knows nothing of: they died between the registration and their note of it.
func (s *session) onKnown(numbers []int32) {
	known := make(map[int32]bool, len(numbers))
	for _, number := range numbers {
		known[number] = true
	}
	var lost []int32
	for number := range s.backings {
		if !known[number] {
			lost = append(lost, number)
		}
	}
	s.onUnback(lost)
	s.backings = known
}

// backing is what the policy has to know of a file.
type backing struct {
	mode     uint32 // st_mode
	flags    int    // of the open file
	readOnly bool   // its mount, or the whole file system
}

func inspect(f *os.File) (backing, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return backing{}, fmt.Errorf("look at a backing file: %w", err)
	}
	if flags&unix.O_PATH != 0 {
		return backing{flags: flags}, nil
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &st), unix.Fstatfs(int(f.Fd()), &fs)); err != nil {
		return backing{}, fmt.Errorf("look at a backing file: %w", err)
	}
	return backing{mode: st.Mode, flags: flags, readOnly: fs.Flags&unix.ST_RDONLY != 0}, nil
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
