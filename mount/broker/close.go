package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// Close lets the client write everything out, ends it and unmounts. After grace, or when ctx ends, the connection is aborted: whoever still waits for it gets an error and
// nobody hangs. It is idempotent, and an unknown session is closed already. Call it when the applications have ended and the sidecar has not: without an
// agent there is nobody who could flush.
func (b *Broker) Close(ctx context.Context, id mount.SessionID, grace time.Duration) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	s := b.find(id)
	if s == nil {
		return b.bury(id)
	}
	if first := s.beginEnd(); !first {
		select {
		case <-s.gone:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("close session %s: %w", id, ctx.Err())
		}
	}
	<-s.opened
	if s.snapshot().State == mount.Closed {
		return nil
	}
	flushed := s.farewell(ctx, grace)
	err := s.vanish(true, true)
	if err != nil {
		return fmt.Errorf("close session %s: %w", id, err)
	}
	e := Event{Reason: SessionClosed, Message: "session closed"}
	if !flushed {
		e.Cause, e.Message = "unflushed", "session closed before its client had written everything out"
	}
	s.log.WithField("flushed", flushed).Info("session closed")
	b.emit(s, e)
	return nil
}

// beginEnd marks the session as ending and tells whether the caller is the first to do so.
func (s *session) beginEnd() (first bool) {
	s.update(func() {
		first = !s.ending
		s.ending = true
		s.ready = false
	})
	return first
}

// farewell has the client flush and end. It returns whether nothing is left unwritten as far as anybody can know.
func (s *session) farewell(ctx context.Context, grace time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	asked := false
	for {
		s.mu.Lock()
		agent, view, taken, awaited, changed := s.agent, s.client, s.taken, s.files == nil, s.changed
		s.mu.Unlock()
		switch {
		case view.Phase == wire.Terminated:
			return view.Flushed
		case agent == nil && !awaited:
			return !taken
		case agent != nil && !asked:
			asked = true
			// Part of the time is kept for the agent to kill a client that does not end.
			if err := agent.tell(ctx, wire.Message{Type: wire.Close, Grace: grace * 9 / 10}); err != nil {
				s.log.WithError(err).Warn("ask the agent to end")
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// bury removes the dead mount of a lost session that was not opened again.
func (b *Broker) bury(id mount.SessionID) error {
	r, err := b.journal.find(id)
	if errors.Is(err, mount.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("close session %s: %w", id, err)
	}
	if err := fuse.Unmount(r.Target); err != nil {
		return fmt.Errorf("close session %s: %w", id, err)
	}
	return errors.Join(os.RemoveAll(b.SocketDir(id)), b.journal.remove(id))
}

// vanish removes every trace of the session and closes it. The socket's directory and the dead mount stay when a running container may still have them
// mounted.
func (s *session) vanish(withDirectory, withMount bool) error {
	err := s.dismantle(withMount)
	if withDirectory {
		err = errors.Join(err, os.RemoveAll(s.b.SocketDir(s.request.ID)))
	}
	s.b.forget(s)
	s.update(func() { s.state, s.ready, s.agent = mount.Closed, false, nil })
	close(s.gone)
	return err
}

// dismantle ends the connection before the mount, so that neither anybody who uses it nor the unmounting can hang, and forgets the session last. One whose mount
// stays remains in the journal, or nobody would remove it when the session is not opened again.
func (s *session) dismantle(withMount bool) error {
	var err error
	if s.device != 0 {
		err = s.b.control.Abort(s.device)
	}
	s.mu.Lock()
	held := s.files
	s.files = nil
	s.mu.Unlock()
	if held != nil {
		held.close()
	}
	if withMount {
		err = errors.Join(err, fuse.Unmount(s.request.Target))
	}
	if err != nil {
		return err
	}
	if _, gone := fuse.Find(s.request.Target); !withMount && gone == nil {
		return s.b.journal.write(s.record(mount.Closed))
	}
	return s.b.journal.remove(s.request.ID)
}

// lose ends a session that cannot be kept.
func (s *session) lose(why string) {
	if first := s.beginEnd(); !first {
		return
	}
	s.log.WithField("reason", why).Error("session lost")
	if err := s.vanish(false, !s.b.o.Cover); err != nil {
		s.log.WithError(err).Error("remove a lost session")
	}
	s.b.emit(s, Event{Reason: SessionLost, Cause: why, Message: "the mount was lost (" + why + ") and must be made again"})
}
