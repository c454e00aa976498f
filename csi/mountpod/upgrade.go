package mountpod

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

// successor is the next pod of a share while an upgrade is under way. It is recorded before it is made, so that the next keeper knows both.
type successor struct {
	Pod   string `json:"pod"`
	Agent int    `json:"agent"`
	Image string `json:"image"`
	// Secret is the keyed hash of the Secret that its client has.
	Secret string `json:"secret"`
}

// upgradeTimeout bounds an upgrade that nobody else bounds: the pull of an image and the start of a client.
const upgradeTimeout = 5 * time.Minute

// Upgrade replaces a share's Mount Pod by one with this image, which may be the same, under the applications that use it. The new pod is made beside the old one;
// when its client is ready, the old client flushes and ends, and the new one gets the session. If the new pod or its client cannot do that before ctx
// ends, the old one goes on, and the error wraps ErrUpgrade and says why. pause is how long requests had to wait.
func (k *Keeper) Upgrade(ctx context.Context, id mount.SessionID, image string) (pause time.Duration, err error) {
	if err := k.ready(ctx); err != nil {
		return 0, err
	}
	s := k.of(id)
	if s == nil {
		return 0, fmt.Errorf("upgrade session %s: %w", id, mount.ErrNotFound)
	}
	if err := s.work.lock(ctx); err != nil {
		return 0, err
	}
	defer s.work.unlock()
	v := k.look(s)
	if !v.secretKnown {
		return 0, fmt.Errorf("%w: %w", ErrUpgrade, ErrSecretUnknown)
	}
	return k.succeed(ctx, s, v.volume, successor{Image: image, Secret: v.record.Secret})
}

// succeed hands the session to a new pod. volume has its Secret. The caller holds the share's work.
func (k *Keeper) succeed(ctx context.Context, s *share, volume mount.Volume, next successor) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	ctx, stop := k.undisturbed(ctx, s)
	defer stop()
	v := k.look(s)
	if !v.record.Served {
		return 0, fmt.Errorf("%w: no client serves session %s yet", ErrUpgrade, s.id)
	}
	if err := k.settleSuccessor(ctx, s); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUpgrade, err)
	}
	next.Pod, next.Agent = newName(k.o.NodeName, v.record.Mount.Volume.ID), k.look(s).record.LastAgent+1
	if err := k.save(s, func(r *shareRecord) { r.Next, r.LastAgent = &next, next.Agent }); err != nil {
		return 0, err
	}
	pause, err := k.takeOver(ctx, s, volume, next)
	if err != nil {
		if cause := context.Cause(ctx); disturbance(cause) {
			err = cause
		}
		err = fmt.Errorf("%w: %w", ErrUpgrade, err)
	}
	// Who has the session now decides, whatever was answered.
	ctx, cancelSettle := context.WithTimeout(context.WithoutCancel(ctx), attempt)
	defer cancelSettle()
	if settled := k.settleSuccessor(ctx, s); settled != nil {
		k.troubled.AddRateLimited(s.id)
		return pause, errors.Join(err, settled)
	}
	if err == nil {
		k.o.Log.WithField("session", s.id).WithField("image", next.Image).WithField("pause", pause).Info("mount pod upgraded")
	}
	return pause, err
}

// takeOver makes the next pod and has the broker give it the session.
func (k *Keeper) takeOver(ctx context.Context, s *share, volume mount.Volume, next successor) (time.Duration, error) {
	if err := k.known(ctx); err != nil {
		return 0, err
	}
	if err := k.step("create next pod"); err != nil {
		return 0, err
	}
	pod, err := k.post(ctx, k.look(s), next.Pod, next.Image, next.Agent)
	if err != nil {
		return 0, err
	}
	k.note(pod)
	if err := k.awaitPod(ctx, s, next.Pod); err != nil {
		return 0, err
	}
	if err := k.step("hand over"); err != nil {
		return 0, err
	}
	return k.o.Broker.Upgrade(ctx, s.id, broker.Successor{Generation: next.Agent, Volume: volume, Grace: k.o.Grace})
}

// settleSuccessor ends what an upgrade has begun: the pod that has the session stays, the other one goes. While nobody serves, both stay. The caller holds the
// share's work.
func (k *Keeper) settleSuccessor(ctx context.Context, s *share) error {
	v := k.look(s)
	if v.record.Next == nil {
		return nil
	}
	now, err := k.o.Broker.Status(s.id)
	switch {
	case errors.Is(err, mount.ErrNotFound):
	case err != nil:
		return err
	case !now.Ready:
		return errors.New("the broker has not found out yet which Mount Pod has the session")
	}
	next := *v.record.Next
	if err != nil || now.Generation != next.Agent {
		err = k.save(s, func(r *shareRecord) { r.Next = nil })
	} else {
		err = k.promote(s, next)
	}
	if err != nil {
		return err
	}
	return k.sweep(ctx, s.id, k.look(s).record.Pod)
}

// promote makes the successor the share's pod.
func (k *Keeper) promote(s *share, next successor) error {
	v := k.look(s)
	m := v.record.Mount
	m.Image = next.Image
	key, err := keyOf(m, next.Secret)
	if err != nil {
		return err
	}
	if err := k.save(s, func(r *shareRecord) {
		r.Pod, r.Agent, r.Mount.Image, r.Secret, r.Key, r.Next = next.Pod, next.Agent, next.Image, next.Secret, key, nil
	}); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.created = true
	if next.Secret != v.record.Secret {
		s.secretKnown = false
	}
	if r := s.handed; r != nil && r.hash == next.Secret {
		k.learn(s, r.secret)
	}
	if k.byKey[v.record.Key] == s {
		delete(k.byKey, v.record.Key)
	}
	if k.byKey[key] == nil {
		k.byKey[key] = s
	}
	return nil
}

// awaitPod waits until a pod's container runs. It gives up when something is wrong with it for as long as patience lasts.
func (k *Keeper) awaitPod(ctx context.Context, s *share, name string) error {
	patience := time.NewTimer(k.o.Patience)
	defer patience.Stop()
	failing := false
	for {
		k.mu.Lock()
		changed, pod, m := s.changed, k.pods[s.id][name], s.record.Mount
		k.mu.Unlock()
		if pod == nil {
			return &podError{"the new Mount Pod was deleted"}
		}
		if pod.DeletionTimestamp != nil {
			return &podError{"the new Mount Pod is being deleted"}
		}
		text := trouble(pod, m)
		switch {
		case running(pod):
			return nil
		case finished(pod):
			return &podError{text}
		case (text != "") != failing:
			failing = text != ""
			patience.Reset(k.o.Patience)
		}
		select {
		case <-changed:
		case <-patience.C:
			if failing {
				return &podError{text}
			}
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", progress(pod), ctx.Err())
		}
	}
}

func running(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil {
			return true
		}
	}
	return false
}

// askedFor returns the Mount Pod if its annotation asks for an image that nobody has tried yet. The caller holds mu.
func (k *Keeper) askedFor(s *share) (pod *corev1.Pod, image string) {
	pod = k.pod(s)
	if pod == nil || pod.DeletionTimestamp != nil || !s.secretKnown {
		return nil, ""
	}
	image = pod.Annotations[UpgradeAnnotation]
	if image == "" || s.asked == asking(pod, image) {
		return nil, ""
	}
	return pod, image
}

// asking is what an annotation asks for.
func asking(pod *corev1.Pod, image string) string { return string(pod.UID) + " " + image }

// upgradeAsAsked does what the annotation of the Mount Pod asks for, once. The caller holds the share's work.
func (k *Keeper) upgradeAsAsked(ctx context.Context, s *share) {
	k.mu.Lock()
	pod, image := k.askedFor(s)
	if pod != nil {
		s.asked = asking(pod, image)
	}
	k.mu.Unlock()
	if pod == nil {
		return
	}
	v := k.look(s)
	pause, err := k.succeed(ctx, s, v.volume, successor{Image: image, Secret: v.record.Secret})
	if err != nil && ctx.Err() != nil {
		return // the next keeper is asked again
	}
	if err != nil {
		k.o.Log.WithField("session", s.id).WithError(err).Warn("mount pod not upgraded")
		k.o.Recorder.Event(pod, corev1.EventTypeWarning, "UpgradeFailed", err.Error())
		return
	}
	k.o.Recorder.Event(pod, corev1.EventTypeNormal, "Upgraded",
		fmt.Sprintf("Mount Pod %s has taken over with image %s; requests waited for %s", k.look(s).record.Pod, image, pause.Round(time.Millisecond)))
}

// rotation is a changed Secret of a share in use.
type rotation struct {
	secret mount.Secret
	hash   string
}

// rotate notes that a repeated publish has brought another Secret. The caller holds mu.
func (k *Keeper) rotate(s *share, secret mount.Secret, hash string) {
	// A publish is not heard of again once it has been answered, so what cannot be handed over now is kept.
	s.rotated = &rotation{secret: secret, hash: hash}
	k.troubled.AddAfter(s.id, k.o.Rotation-time.Since(s.rotatedAt))
}

// handOverSecret gives a changed Secret to a new client. If that cannot serve with it, the old one goes on with what it has, and the Secret is tried again. The caller holds the
// share's work.
func (k *Keeper) handOverSecret(ctx context.Context, s *share) {
	k.mu.Lock()
	r := s.rotated
	if r == nil || time.Since(s.rotatedAt) < k.o.Rotation {
		k.mu.Unlock()
		return
	}
	s.rotated = nil
	if r.hash == s.record.Secret { // an attempt that was interrupted, or seemed to fail, has not
		k.learn(s, r.secret)
		k.mu.Unlock()
		return
	}
	s.handed, s.rotatedAt = r, time.Now()
	pod, image := k.pod(s), s.record.Mount.Image
	k.mu.Unlock()
	volume := k.look(s).volume
	volume.Secret = r.secret
	_, err := k.succeed(ctx, s, volume, successor{Image: image, Secret: r.hash})
	if err == nil || ctx.Err() != nil {
		return
	}
	k.o.Log.WithField("session", s.id).WithError(err).Warn("changed secret not handed over")
	disturbed := disturbance(err)
	if pod != nil && !disturbed {
		k.o.Recorder.Event(pod, corev1.EventTypeWarning, "SecretNotHandedOver", "the volume's client goes on with the Secret that it has: "+err.Error())
	}
	k.change(s, func() {
		if s.rotated == nil {
			s.rotated = r
		}
		if disturbed {
			s.rotatedAt = time.Time{} // that was no attempt
		}
	})
	k.troubled.AddAfter(s.id, k.o.Rotation)
}
