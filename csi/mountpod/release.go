package mountpod

import (
	"context"
	"time"

	"github.com/sidemount/sidemount/mount/broker"
)

// Release forgets that target uses its share; the bind must be gone. It is idempotent, and an unknown target is released already. It touches no
// mount and calls no API: the share of the last target that goes is ended by Run after the volume's delay.
func (k *Keeper) Release(ctx context.Context, target string) error {
	if err := k.ready(ctx); err != nil {
		return err
	}
	unlock, err := k.targets.lock(ctx, target)
	if err != nil {
		return err
	}
	defer unlock()
	return k.forget(target)
}

// forget drops a reference, on disk first. The caller holds the target's lock.
func (k *Keeper) forget(target string) error {
	k.mu.Lock()
	ref := k.references[target]
	k.mu.Unlock()
	if ref == nil {
		return nil
	}
	if err := k.store.dropReference(target); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.part(ref)
	return nil
}

// Find returns the share that target uses, without asking whether it serves.
func (k *Keeper) Find(target string) (Share, bool) {
	k.mu.Lock()
	ref := k.references[target]
	k.mu.Unlock()
	if ref == nil {
		return Share{}, false
	}
	return k.shareOf(ref.share), true
}

// Condition tells whether the volume at target works, and if not, why; it does not touch the mount. A target without a reference is abnormal.
func (k *Keeper) Condition(target string) (abnormal bool, message string) {
	k.mu.Lock()
	ref := k.references[target]
	k.mu.Unlock()
	if ref == nil {
		return true, "the target uses no volume of this driver"
	}
	now, err := k.o.Broker.Status(ref.share.id)
	switch {
	case err != nil:
		return true, "the mount was lost and is made again when the kubelet publishes the volume again"
	case now.Ready:
		return false, "a client serves the volume"
	}
	if failure := k.failure(ref.share); failure != nil {
		return true, "requests wait for a client: " + failure.Error()
	}
	return true, "requests wait for a client, which is being started"
}

// confirm drops references whose target has not become a mount point in time: the publish failed and was never repeated, or its pod went while
// nobody looked.
func (k *Keeper) confirm(ctx context.Context) {
	for {
		target, shutdown := k.unconfirmed.Get()
		if shutdown {
			return
		}
		if err := k.confirmOne(ctx, target); err != nil && ctx.Err() == nil {
			k.o.Log.WithError(err).WithField("target", target).Warn("cannot tell whether a target is in use")
			k.unconfirmed.AddAfter(target, k.o.Linger)
		}
		k.unconfirmed.Done(target)
	}
}

func (k *Keeper) confirmOne(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	unlock, err := k.targets.lock(ctx, target)
	if err != nil {
		return err
	}
	defer unlock()
	k.mu.Lock()
	ref := k.references[target]
	var left time.Duration
	if ref != nil {
		left = k.o.Linger - time.Since(ref.touched)
	}
	k.mu.Unlock()
	if ref == nil {
		return nil
	}
	used, err := k.o.Mounted(target)
	switch {
	case err != nil || used:
		return err
	case left > 0:
		k.unconfirmed.AddAfter(target, left)
		return nil
	}
	k.o.Log.WithField("target", target).Info("target was never mounted, its reference is dropped")
	return k.forget(target)
}

// request asks the broker for the session of a share.
func (k *Keeper) request(v view) broker.Request {
	return broker.Request{
		ID: v.record.Session, Target: k.mountPoint(v.record.Session), Volume: v.volume,
		UID: uint32(v.record.Mount.UID), GID: uint32(v.record.Mount.GID), Generation: v.record.Agent,
	}
}
