package broker

import (
	"context"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
)

// restore takes up the sessions of the broker before: those whose mount is there wait for their agents, the others are lost.
func (b *Broker) restore() ([]*session, error) {
	records, err := b.journal.read()
	if err != nil {
		return nil, err
	}
	var restored []*session
	for _, r := range records {
		s := b.newSession(Request{
			ID: r.ID, Target: r.Target, UID: r.UID, GID: r.GID, Generation: r.Generation,
			Volume: mount.Volume{ID: r.Volume, Name: r.VolumeName, Client: r.Client, ReadOnly: r.ReadOnly},
		}, r.Mount)
		close(s.opened)
		if why := s.takeUp(r); why != "" {
			s.lose(why)
			continue
		}
		b.mu.Lock()
		b.sessions[r.ID] = s
		b.mu.Unlock()
		restored = append(restored, s)
	}
	return restored, nil
}

// takeUp prepares a recorded session for its agent, or says why it cannot be kept.
func (s *session) takeUp(r record) (why string) {
	entry, err := fuse.Find(r.Target)
	switch {
	case err != nil:
		return "the mount is gone"
	case entry.Source != sourcePrefix+string(r.ID):
		return "something else is mounted there"
	case r.State == mount.Closed:
		return "it was lost before, and not opened again"
	case r.State != mount.Mounted || entry.Device != r.Device:
		s.device = entry.Device
		return "the broker died while it made the mount"
	}
	s.device = r.Device
	if err := s.listen(); err != nil {
		s.log.WithError(err).Error("restore a session")
		return "its socket could not be made"
	}
	s.state, s.taken = mount.Orphaned, true
	return ""
}

// awaitAgent gives a restored session up when its agent does not come.
func (s *session) awaitAgent(ctx context.Context) {
	timer := time.NewTimer(s.b.o.Reconnect)
	defer timer.Stop()
	select {
	case <-s.returned:
	case <-s.gone:
	case <-ctx.Done():
	case <-timer.C:
		s.lose("its agent did not come back")
	}
}
