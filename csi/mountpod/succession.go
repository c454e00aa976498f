package mountpod

import (
	"context"
	"errors"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// successions is how many shares of a node get another client at once because somebody wants it: fewer than there are workers, and not by these, so that
// a node whose images come slowly is put right all the same.
const successions = 4

// What ends a succession before its time, since it holds the share meanwhile.
var (
	errDeparting = errors.New("the present Mount Pod is going")
	errUnused    = errors.New("nobody uses the volume any more")
	errLost      = errors.New("the mount was lost")
)

// renew gives shares the clients that somebody wants for them, one after the other.
func (k *Keeper) renew(ctx context.Context) {
	for {
		id, shutdown := k.wanted.Get()
		if shutdown {
			return
		}
		k.renewOne(ctx, id)
		k.wanted.Done(id)
	}
}

func (k *Keeper) renewOne(ctx context.Context, id mount.SessionID) {
	s := k.of(id)
	if s == nil {
		return
	}
	timed, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	if err := s.work.lock(timed); err != nil {
		k.troubled.AddRateLimited(id)
		return
	}
	defer s.work.unlock()
	if k.wants(s) {
		k.handOverSecret(ctx, s)
	}
	if k.wants(s) {
		k.upgradeAsAsked(ctx, s)
	}
}

// wants tells whether another client is wanted for a share in use, and can be had now.
func (k *Keeper) wants(s *share) bool {
	now, err := k.o.Broker.Status(s.id)
	if err != nil || !now.Ready || k.disturbed(s) != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	pod, _ := k.askedFor(s)
	return pod != nil || s.rotated != nil && time.Since(s.rotatedAt) >= k.o.Rotation
}

// disturbed tells why a share is needed for something else than a succession.
func (k *Keeper) disturbed(s *share) error {
	if _, err := k.o.Broker.Status(s.id); err != nil {
		return errLost
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	pod := k.pod(s)
	switch {
	case len(s.users) == 0:
		return errUnused
	case !s.relieving && (pod == nil || pod.DeletionTimestamp != nil || finished(pod)):
		return errDeparting
	}
	return nil
}

// disturbance tells whether an error is one of those.
func disturbance(err error) bool {
	return errors.Is(err, errDeparting) || errors.Is(err, errUnused) || errors.Is(err, errLost)
}

// undisturbed returns a context that ends when the share is disturbed, and what stops that. Whoever is told of a change meanwhile leaves the share alone, and
// it is looked at afterwards.
func (k *Keeper) undisturbed(ctx context.Context, s *share) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	k.change(s, func() { s.succeeding = true })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			k.mu.Lock()
			changed := s.changed
			k.mu.Unlock()
			if err := k.disturbed(s); err != nil {
				cancel(err)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
		k.change(s, func() { s.succeeding = false })
		k.troubled.Add(s.id)
	}
}
