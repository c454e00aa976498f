package volumes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// Options of a Service.
type Options struct {
	// Meta is the metadata client, with its root at the file system's.
	Meta meta.Meta
	// Subdir confines everything to a directory, which is made if it is missing. Default: the whole file system.
	Subdir string
	// Reach tells within seconds whether the metadata engine can be connected to. Default: it is taken for granted.
	Reach func(context.Context) error
	// Patience is how long a command waits for a copy before it answers that it is under way. Default 3 s.
	Patience time.Duration
	// Log gets progress. Default: the standard logger.
	Log *logrus.Entry
}

// Service carries out commands on one file system. The FileSystem in the commands is not looked at. It is safe for concurrent use.
type Service struct {
	o      Options
	m      meta.Meta
	locks  locks
	jobs   jobs
	trash  chan struct{} // something new is in the trash
	active sync.WaitGroup

	mu   sync.Mutex
	lost error // why commands can no longer be carried out
}

var _ admin.Service = (*Service)(nil)

// New prepares a Service; Run must run for it to remove anything.
func New(o Options) (*Service, error) {
	if o.Meta == nil {
		return nil, errors.New("volumes: there is no metadata client")
	}
	if o.Patience == 0 {
		o.Patience = 3 * time.Second
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if _, err := splitSubdir(o.Subdir); err != nil {
		return nil, err
	}
	return &Service{o: o, m: o.Meta, trash: make(chan struct{}, 1)}, nil
}

// Run removes what is in the trash, first what an earlier worker has left, until ctx ends. Copies that run then are abandoned
// and done again when somebody asks for them.
func (s *Service) Run(ctx context.Context) error {
	err := s.reap(ctx)
	s.jobs.stop()
	s.active.Wait()
	return err
}

// Busy tells whether copies or removals run.
func (s *Service) Busy() bool { return s.jobs.running() }

const (
	// reachTimeout bounds the first question to the metadata engine in each command.
	reachTimeout = 8 * time.Second
	// endGrace is how long a command whose time is over may take to notice.
	endGrace = time.Second
)

// Lost is why the metadata client is of no use any more, nil if it is: a call into it did not come back. Calls into the engine's drivers
// cannot be interrupted, so only a new process helps.
func (s *Service) Lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// do runs a command within its deadline.
func do[T any](ctx context.Context, s *Service, run func(ctx meta.Context, l layout) (T, error)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeout(ctx, admin.MaxDuration)
	defer cancel()
	if err := s.Lost(); err != nil {
		return none, err
	}
	l, err := bounded(ctx, s, reachTimeout, s.open)
	if err != nil {
		return none, err
	}
	return bounded(ctx, s, admin.MaxDuration, func(ctx meta.Context) (T, error) { return run(ctx, l) })
}

// bounded waits for work that cannot be interrupted for as long as ctx and limit allow.
func bounded[T any](ctx context.Context, s *Service, limit time.Duration, work func(meta.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	s.active.Add(1)
	go func() {
		defer s.active.Done()
		var r result
		r.value, r.err = work(newRequest(ctx))
		done <- r
	}()
	var none T
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(endGrace)
	defer grace.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-grace.C:
	}
	err := fmt.Errorf("%w: the metadata engine does not answer", mount.ErrUnavailable)
	s.mu.Lock()
	s.lost = err
	s.mu.Unlock()
	return none, err
}

// layout are the directories' inodes. They are looked up for each command: an administrator may have removed some.
type layout struct {
	root, reserved, volumes, snapshots, content, fresh, trash meta.Ino
}

// open finds or makes the directories.
func (s *Service) open(ctx meta.Context) (l layout, err error) {
	if s.o.Reach != nil {
		if err := s.o.Reach(ctx); err != nil {
			return l, err
		}
	}
	parts, err := splitSubdir(s.o.Subdir)
	if err != nil {
		return l, err
	}
	l.root = meta.RootInode
	for _, part := range parts {
		if l.root, err = s.directory(ctx, l.root, part, 0o777); err != nil {
			return l, fmt.Errorf("mount option \"subdir\" %q: %w", s.o.Subdir, err)
		}
	}
	if l.reserved, err = s.directory(ctx, l.root, admin.Reserved, 0o700); err != nil {
		return l, err
	}
	if err := s.checkOwner(ctx, l.reserved); err != nil {
		return l, err
	}
	for name, ino := range map[string]*meta.Ino{
		"volumes": &l.volumes, "snapshots": &l.snapshots, "content": &l.content, "new": &l.fresh, "trash": &l.trash,
	} {
		if *ino, err = s.directory(ctx, l.reserved, name, 0o700); err != nil {
			return l, err
		}
	}
	return l, nil
}

// checkOwner refuses a reserved directory that somebody else has made: what is in it cannot be believed.
func (s *Service) checkOwner(ctx meta.Context, ino meta.Ino) error {
	var attr meta.Attr
	if st := s.m.GetAttr(ctx, ino, &attr); st != 0 {
		return failed(ctx, "read "+admin.Reserved, st)
	}
	if attr.Uid != 0 || attr.Mode&0o077 != 0 {
		return fmt.Errorf("%w: the file system's directory %s must belong to user 0 with mode 0700; it has user %d, mode %04o",
			mount.ErrConfig, admin.Reserved, attr.Uid, attr.Mode&0o7777)
	}
	return nil
}

// splitSubdir reads the option "subdir" as the client does: a path from the file system's root.
func splitSubdir(subdir string) ([]string, error) {
	var parts []string
	for _, part := range strings.Split(subdir, "/") {
		switch part {
		case "", ".":
		case "..", meta.TrashName:
			return nil, fmt.Errorf("%w: mount option \"subdir\" %q has the part %q", mount.ErrConfig, subdir, part)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}
