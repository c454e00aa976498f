package mountpod

import (
	"context"
	"errors"

	"github.com/sidemount/sidemount/mount"
)

// finish ends a share that nobody uses: the client flushes, the session is closed, the pod deleted, and at last the record forgotten, so that an
// interrupted end is taken up again. Somebody may acquire it meanwhile; then it stays, without session and pod.
func (k *Keeper) finish(ctx context.Context, s *share) error {
	id := s.id
	if err := k.step("close"); err != nil {
		return err
	}
	k.settle(ctx, s)
	if err := k.o.Broker.Close(ctx, id, k.o.Grace); err != nil {
		return err
	}
	if err := k.step("delete pod"); err != nil {
		return err
	}
	if err := k.known(ctx); err != nil {
		return err
	}
	if err := k.sweep(ctx, id); err != nil {
		return err
	}
	if err := k.store.dropShare(id); err != nil {
		return err
	}
	k.change(s, func() {
		s.recorded, s.created, s.cause, s.failures = false, false, "", 0
		s.record.Pod, s.record.Served, s.record.Agent, s.record.LastAgent, s.record.Next = "", false, 0, 0, nil
		if len(s.users) == 0 {
			delete(k.shares, id)
			if k.byKey[s.record.Key] == s {
				delete(k.byKey, s.record.Key)
			}
		}
	})
	k.o.Log.WithField("session", id).Info("share ended")
	return nil
}

// settle gives the client of an interrupted session time to come back, so that there is somebody who can write out what the one before has left. It
// waits no longer than a client may flush: what cannot come back shall not keep the share.
func (k *Keeper) settle(ctx context.Context, s *share) {
	ctx, cancel := context.WithTimeout(ctx, k.o.Grace)
	defer cancel()
	for {
		k.mu.Lock()
		changed := s.changed
		k.mu.Unlock()
		if now, err := k.o.Broker.Status(s.id); err != nil || now.State != mount.Orphaned {
			return
		}
		// A pod that went with the last user is needed once more.
		if err := k.ensurePod(ctx, s); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			k.o.Log.WithField("session", s.id).WithError(err).Warn("unflushed volume has no mount pod")
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
