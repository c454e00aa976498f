package broker

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// sourcePrefix marks this project's mounts in mount tables; the session's id follows.
const sourcePrefix = "sidemount:"

// Open mounts the session, or returns the one that already has this ID. The volume of a session that no client has ever served is replaced by the
// request's, so that a mended Secret reaches the client; later it is not. The mount exists when Open returns: requests wait for the client.
func (b *Broker) Open(ctx context.Context, r Request) (Session, error) {
	if err := r.check(); err != nil {
		return Session{}, err
	}
	if err := b.ready(ctx); err != nil {
		return Session{}, err
	}
	s, isNew := b.reserve(r)
	if !isNew {
		return b.reopen(ctx, s, r)
	}
	err := s.open(ctx)
	if err == nil {
		// Run must own the session before anybody can meet it.
		select {
		case b.adopt <- s:
		case <-b.down:
			err = errEnded
			s.undo()
		}
	}
	if err != nil {
		b.forget(s)
		s.update(func() { s.state, s.failure = mount.Closed, err })
		close(s.gone)
	}
	close(s.opened)
	if err != nil {
		return Session{}, fmt.Errorf("open session %s: %w", r.ID, err)
	}
	return s.snapshot(), nil
}

// reserve takes the ID for a new session, or returns the session that has it.
func (b *Broker) reserve(r Request) (*session, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[r.ID]; s != nil {
		return s, false
	}
	s := b.newSession(r, rand.Text())
	b.sessions[r.ID] = s
	return s, true
}

// reopen answers for a session that is there already.
func (b *Broker) reopen(ctx context.Context, s *session, r Request) (Session, error) {
	select {
	case <-s.opened:
	case <-ctx.Done():
		return Session{}, fmt.Errorf("open session %s: %w", r.ID, ctx.Err())
	}
	now := s.snapshot()
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	switch {
	case now.State == mount.Closed && now.Failure != nil && !ending:
		return Session{}, fmt.Errorf("open session %s: %w", r.ID, now.Failure)
	case ending || now.State == mount.Closed:
		return Session{}, fmt.Errorf("open session %s, which is ending: %w", r.ID, mount.ErrClosed)
	case filepath.Base(now.Target) != filepath.Base(r.Target):
		return Session{}, fmt.Errorf("open session %s at %s: it is mounted at %s: %w", r.ID, r.Target, now.Target, mount.ErrConfig)
	case now.Volume != r.Volume.ID || s.request.Volume.Client != r.Volume.Client:
		return Session{}, fmt.Errorf("open session %s for volume %s: it has volume %s: %w", r.ID, r.Volume.ID, now.Volume, mount.ErrConfig)
	}
	s.renew(ctx, r.Volume)
	return now, nil
}

// renew takes a changed volume for a session that nobody has served yet, and tells the agent.
func (s *session) renew(ctx context.Context, v mount.Volume) {
	s.mu.Lock()
	unserved := s.served == 0 && s.client.Served == 0
	changed := s.volumeKnown && unserved && !reflect.DeepEqual(s.volume, v)
	if changed || !s.volumeKnown {
		s.volume, s.volumeKnown = v, true
	}
	agent := s.agent
	s.mu.Unlock()
	if !changed || agent == nil {
		return
	}
	if err := agent.tell(ctx, wire.Message{Type: wire.Update, Volume: &v}); err != nil {
		s.log.WithError(err).Warn("tell the agent of a changed volume")
	}
}

// open makes the session: intent, mount, socket, result. It leaves nothing behind when it fails.
func (s *session) open(ctx context.Context) (err error) {
	if err := s.b.journal.write(s.record(mount.Requested)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.undo()
		}
	}()
	if err := s.clearTarget(); err != nil {
		return err
	}
	v := s.request.Volume
	c, err := fuse.Mount(ctx, s.request.Target, fuse.Options{
		Kind: v.Client, Source: sourcePrefix + string(s.request.ID), UID: s.request.UID, GID: s.request.GID, ReadOnly: v.ReadOnly,
		NoResend: s.b.o.NoResend,
	})
	if err != nil {
		return err
	}
	held := &files{device: c.Device}
	s.update(func() { s.files, s.init, s.answer, s.volumeKnown = held, c.Init, c.Answer, true })
	close(s.returned)
	if held.memory, err = newMemory(); err != nil {
		return err
	}
	entry, err := fuse.Find(s.request.Target)
	if err != nil {
		return fmt.Errorf("find the new mount at %s: %w", s.request.Target, err)
	}
	s.device = entry.Device
	if err := s.listen(); err != nil {
		return err
	}
	s.update(func() { s.state = mount.Mounted })
	return s.b.journal.write(s.record(mount.Mounted))
}

// clearTarget makes the directory to mount at, and removes what an earlier session of the same name has left there.
func (s *session) clearTarget() error {
	target := s.request.Target
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("make the target's parent: %w", err)
	}
	// The mount table knows canonical paths only.
	parent, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("resolve the target's parent: %w", err)
	}
	target = filepath.Join(parent, filepath.Base(target))
	s.update(func() { s.request.Target = target })
	if err := s.b.sweep(target, s.request.ID); err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o755); err != nil && !os.IsExist(err) {
		return fmt.Errorf("make the target: %w", err)
	}
	return nil
}

// sweep ends mounts of a session's name at a path. Anything else that is mounted there stays, and is an error.
func (b *Broker) sweep(target string, id mount.SessionID) error {
	for {
		entry, err := fuse.Find(target)
		if err == fuse.ErrNotMounted {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.Source != sourcePrefix+string(id) {
			return fmt.Errorf("%s is mounted at %s already", entry.Source, target)
		}
		if err := b.control.Abort(entry.Device); err != nil || b.o.Cover {
			return err
		}
		if err := fuse.Unmount(target); err != nil {
			return err
		}
	}
}

func (s *session) listen() error {
	dir := s.b.SocketDir(s.request.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	l, err := wire.Listen(s.socket(), int(s.request.UID), int(s.request.GID))
	if err != nil {
		return err
	}
	s.listener = l
	return nil
}

// undo takes back what a failed open has done.
func (s *session) undo() {
	if s.listener != nil {
		s.listener.Close()
	}
	if err := s.dismantle(true); err != nil {
		s.log.WithError(err).Error("take back a mount that failed")
	}
}
