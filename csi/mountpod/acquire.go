package mountpod

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// Acquire makes r.Target a user of its volume's share and waits until a client serves it. It is idempotent per target: repeated for a target in
// use, it returns the share again, opened anew if its session was lost. A changed description does not move a target that is in use, since its
// mount cannot be exchanged under the application; it moves one that no client has ever served.
//
// The error wraps the client's own failure (mount.ErrConfig, mount.ErrUnavailable), or says what the Mount Pod lacks, which is
// mount.ErrUnavailable. The reference is then kept for a while (Options.Linger), and the Mount Pod with it, for the next attempt.
func (k *Keeper) Acquire(ctx context.Context, r Request) (_ Share, err error) {
	if !filepath.IsAbs(r.Target) || filepath.Clean(r.Target) != r.Target || r.Target == "/" {
		return Share{}, fmt.Errorf("target %q is not a clean absolute path: %w", r.Target, mount.ErrConfig)
	}
	if err := k.ready(ctx); err != nil {
		return Share{}, err
	}
	unlock, err := k.targets.lock(ctx, r.Target)
	if err != nil {
		return Share{}, err
	}
	defer unlock()
	began := time.Now()
	s, err := k.refer(ctx, r)
	if err != nil {
		return Share{}, err
	}
	k.unconfirmed.AddAfter(r.Target, k.o.Linger)
	cold := !k.serves(s)
	defer func() { k.metrics.acquired(cold, err, time.Since(began)) }()
	if cold {
		if err := k.start(ctx, s); err != nil {
			return Share{}, err
		}
	}
	return k.shareOf(s), nil
}

// refer finds or makes the share that r asks for, and records the reference before anything else is done.
func (k *Keeper) refer(ctx context.Context, r Request) (*share, error) {
	secret, err := hashSecret(k.secrets, r.Mount.Volume.Secret)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(r.Mount, secret)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	if ref := k.references[r.Target]; ref != nil {
		if k.stays(ref, key) {
			defer k.mu.Unlock()
			k.repeated(ref, r.Mount.Volume, secret, key)
			return ref.share, nil
		}
		k.part(ref)
	}
	s := k.byKey[key]
	if s == nil {
		s = k.found(r, key, secret)
	}
	k.learn(s, r.Mount.Volume.Secret)
	s.record.Mount.Pod.DeleteDelay = r.Mount.Pod.DeleteDelay
	record := referenceRecord{
		Target: r.Target, Session: s.id, Namespace: r.Pod.Namespace, Name: r.Pod.Name, UID: r.PodUID, Boot: k.o.BootID,
	}
	// It counts before it is on disk, so that the share does not end meanwhile.
	k.adopt(s, record)
	k.mu.Unlock()
	if err := k.store.putReference(record); err != nil {
		k.mu.Lock()
		k.part(k.references[r.Target])
		k.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// stays tells whether a target keeps its share although its description may have changed. The caller holds mu.
func (k *Keeper) stays(ref *reference, key string) bool {
	if ref.share.record.Key == key {
		return true
	}
	_, err := k.o.Broker.Status(ref.share.id)
	return ref.share.record.Served && err == nil
}

// found makes a new share. The caller holds mu.
func (k *Keeper) found(r Request, key, secret string) *share {
	id := sessionOf(r.Mount.Volume.ID, key, 0)
	for n := 1; k.shares[id] != nil; n++ {
		id = sessionOf(r.Mount.Volume.ID, key, n)
	}
	s := newShare(shareRecord{Session: id, Key: key, Secret: secret, Mount: clean(r.Mount)})
	k.shares[id], k.byKey[key] = s, s
	return s
}

// repeated takes from the repeated publish of a target in use what it tells of the Secret, whatever else may have changed: after an upgrade of the driver, for
// one, the default image is another one. The rest is for users that come later. The caller holds mu.
func (k *Keeper) repeated(ref *reference, v mount.Volume, secret, key string) {
	s := ref.share
	ref.touched = time.Now()
	now := s.record.Mount.Volume
	switch same := v.ID == now.ID && v.Client == now.Client; {
	case same && secret == s.record.Secret:
		k.learn(s, v.Secret)
		s.rotated = nil // a change that was taken back
	case same:
		k.rotate(s, v.Secret, secret)
	}
	if as, err := keyOf(s.record.Mount, secret); err != nil || as != key {
		k.o.Log.WithField("session", s.id).WithField("target", ref.record.Target).
			Info("volume has changed, its users keep what they have until they start again")
	}
}

// learn takes the Secret of a share, and has done what has waited for it since a restart forgot it. The caller holds mu.
func (k *Keeper) learn(s *share, secret mount.Secret) {
	if !s.secretKnown && s.recorded {
		k.troubled.Add(s.id)
	}
	s.secret, s.secretKnown = secret, true
}

// part takes a reference from its share, which has its delay to find another user. The caller holds mu.
func (k *Keeper) part(ref *reference) {
	s := ref.share
	delete(s.users, ref.record.Target)
	delete(k.references, ref.record.Target)
	if len(s.users) == 0 {
		s.idle = time.Now()
		s.wake()
		k.troubled.AddAfter(s.id, s.record.Mount.Pod.DeleteDelay)
	}
}

// serves tells whether nothing has to be done for another user.
func (k *Keeper) serves(s *share) bool {
	v := k.look(s)
	if !v.recorded || !v.record.Served || v.ending {
		return false
	}
	now, err := k.o.Broker.Status(v.record.Session)
	return err == nil && now.Ready
}

// start brings a share into service and waits until it is.
func (k *Keeper) start(ctx context.Context, s *share) error {
	k.mu.Lock()
	failures := s.clientFailures
	k.mu.Unlock()
	if err := s.work.lock(ctx); err != nil {
		return err
	}
	err := k.ensure(ctx, s)
	s.work.unlock()
	if err != nil {
		k.troubled.AddRateLimited(s.id)
		return err
	}
	if err := k.await(ctx, s, failures); err != nil {
		return err
	}
	if err := s.work.lock(ctx); err != nil {
		return err
	}
	defer s.work.unlock()
	return k.served(s)
}

// served notes that a client serves, which makes the references lasting.
func (k *Keeper) served(s *share) error {
	k.change(s, func() { s.cause, s.refusal = "", nil })
	return k.save(s, func(r *shareRecord) { r.Served = true })
}

// await waits until a client serves. It gives up early when a failure lasts, and at once when a client has found the volume misconfigured since
// the call began.
func (k *Keeper) await(ctx context.Context, s *share, failures int) error {
	patience := time.NewTimer(k.o.Patience)
	defer patience.Stop()
	failing, impatient := false, false
	for {
		k.mu.Lock()
		changed, failed := s.changed, s.clientFailures > failures
		id := s.id
		k.mu.Unlock()
		now, err := k.o.Broker.Status(id)
		if err == nil && now.Ready {
			return nil
		}
		failure := k.failure(s)
		if failure != nil && (impatient || failed && errors.Is(failure, mount.ErrConfig)) {
			return failure
		}
		if (failure != nil) != failing {
			failing = failure != nil
			patience.Reset(k.o.Patience)
		}
		select {
		case <-changed:
		case <-patience.C:
			impatient = failing
		case <-ctx.Done():
			return k.unready(ctx, s)
		}
	}
}

// failure is why no client serves a share, nil if it may just take its time.
func (k *Keeper) failure(s *share) error {
	k.mu.Lock()
	id, pod, m, refusal, cause := s.id, k.pod(s), s.record.Mount, s.refusal, s.cause
	k.mu.Unlock()
	if now, err := k.o.Broker.Status(id); err == nil && now.Failure != nil {
		return now.Failure
	}
	if refusal != nil {
		return refusal
	}
	if pod != nil {
		if text := trouble(pod, m); text != "" {
			return &podError{text}
		}
	}
	if cause != "" {
		return &podError{cause}
	}
	return nil
}

// unready is the error of a wait that ctx has ended.
func (k *Keeper) unready(ctx context.Context, s *share) error {
	if failure := k.failure(s); failure != nil {
		return failure
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Errorf("no client serves volume %s yet: %s: %w", s.record.Mount.Volume.ID, progress(k.pod(s)), ctx.Err())
}

func (k *Keeper) shareOf(s *share) Share {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Share{Session: s.id, Path: k.mountPoint(s.id), Generation: s.record.Generation, Pod: s.record.Pod}
}

// mountPoint is where a session is mounted.
func (k *Keeper) mountPoint(id mount.SessionID) string {
	return filepath.Join(k.o.MountsDir, string(id))
}
