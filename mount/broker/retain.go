package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// Retain has the agent that serves a session serve on for d at most although it has been or will be asked to end, because Upgrade is going to give the session to
// another one. 0 takes that back. An agent that was started without -relief ends all the same, and one that is killed ends anyhow.
func (b *Broker) Retain(ctx context.Context, id mount.SessionID, d time.Duration) error {
	s := b.find(id)
	if s == nil {
		return fmt.Errorf("retain the agent of session %s: %w", id, mount.ErrNotFound)
	}
	var leaving *agent
	s.update(func() {
		s.retained = time.Now().Add(d)
		if s.agent != nil && s.agent.leaving {
			leaving = s.agent
		}
	})
	if leaving == nil {
		return nil
	}
	if err := leaving.tell(ctx, wire.Message{Type: wire.Stay, Grace: d}); err != nil {
		return fmt.Errorf("retain the agent of session %s: %w", id, err)
	}
	return nil
}

// onLeaving: an agent has been asked to end. It does so soon unless it is told to stay.
func (s *session) onLeaving(ctx context.Context, a *agent) {
	var left time.Duration
	s.update(func() {
		a.leaving = true
		left = time.Until(s.retained)
	})
	if s.reports.allows() {
		s.log.WithField("generation", a.generation).WithField("retained", left > 0).Info("the agent has been asked to end")
	}
	if left <= 0 {
		return
	}
	if err := a.tell(ctx, wire.Message{Type: wire.Stay, Grace: left}); err != nil {
		s.log.WithError(err).Warn("ask the agent to stay")
	}
}
