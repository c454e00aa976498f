package mountpod

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
)

// ErrUpgrade: the share goes on with the image that it had.
var ErrUpgrade = errors.New("client not upgraded")

// back bounds the return to the former image.
const back = time.Minute

// Upgrade replaces a share's Mount Pod by one with this image, which may be the same, under the applications that use it. The new pod is made beside the old one and
// gets the session when the old one's client has flushed and ended. If its client does not serve before ctx ends, or finds something wrong,
// another pod with the former image takes over; the error then wraps ErrUpgrade and says why. pause is how long requests had to wait.
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
	if err := k.known(ctx); err != nil {
		return 0, err
	}
	before := k.look(s)
	if !before.record.Served {
		return 0, fmt.Errorf("upgrade session %s, which no client serves yet: %w", id, ErrUpgrade)
	}
	name, err := k.prepareNext(ctx, s, image)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUpgrade, err)
	}
	pause, err = k.handOver(ctx, s, name, image)
	if err == nil {
		k.o.Log.WithField("session", id).WithField("image", image).WithField("pause", pause).Info("client upgraded")
		return pause, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), back)
	defer cancel()
	// The session is held all the time; if this fails too, the share is tended until a client serves it.
	if _, returned := k.handOver(ctx, s, newName(k.o.NodeName, before.record.Mount.Volume.ID), before.record.Mount.Image); returned != nil {
		k.troubled.AddRateLimited(id)
		err = errors.Join(err, fmt.Errorf("return to image %s: %w", before.record.Mount.Image, returned))
	}
	return 0, fmt.Errorf("%w: %w", ErrUpgrade, err)
}

// prepareNext makes the next pod and waits until its agent runs; the old one serves meanwhile.
func (k *Keeper) prepareNext(ctx context.Context, s *share, image string) (name string, err error) {
	name = newName(k.o.NodeName, k.look(s).record.Mount.Volume.ID)
	k.change(s, func() { s.next = name })
	defer func() {
		k.change(s, func() { s.next = "" })
		if err != nil {
			// Nobody knows the pod any more but the sweep.
			k.troubled.Add(s.id)
		}
	}()
	pod, err := k.post(ctx, k.look(s), name, image)
	if err != nil {
		return name, err
	}
	k.note(pod)
	return name, k.awaitPod(ctx, s, name)
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
		text := "the new Mount Pod was deleted"
		if pod != nil {
			text = trouble(pod, m)
			if running(pod) {
				return nil
			}
		}
		if (text != "") != failing {
			failing = text != ""
			patience.Reset(k.o.Patience)
		}
		if pod == nil || finished(pod) {
			return &podError{text}
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

// handOver makes name the share's pod, ends every other and waits until its client serves. The record comes first: a keeper that dies goes on
// with the new pod.
func (k *Keeper) handOver(ctx context.Context, s *share, name, image string) (time.Duration, error) {
	k.mu.Lock()
	failures, m, secret, there := s.clientFailures, s.record.Mount, s.record.Secret, k.pods[s.id][name] != nil
	s.pause, s.upgraded = 0, false
	k.mu.Unlock()
	m.Image = image
	key, err := keyOf(m, secret)
	if err != nil {
		return 0, err
	}
	if err := k.save(s, func(r *shareRecord) { r.Pod, r.Mount.Image = name, image }); err != nil {
		return 0, err
	}
	if err := k.rekey(s, key); err != nil {
		return 0, err
	}
	if !there {
		if err := k.create(ctx, s, name); err != nil {
			return 0, err
		}
	}
	if err := k.sweep(ctx, s.id, name); err != nil {
		return 0, err
	}
	return k.awaitClient(ctx, s, failures)
}

// rekey finds the share by what it is now.
func (k *Keeper) rekey(s *share, key string) error {
	before := k.look(s).record.Key
	if err := k.save(s, func(r *shareRecord) { r.Key = key }); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byKey[before] == s {
		delete(k.byKey, before)
	}
	if k.byKey[key] == nil {
		k.byKey[key] = s
	}
	return nil
}

// awaitClient waits until the next client serves. The end of the client before counts as one failure that is none.
func (k *Keeper) awaitClient(ctx context.Context, s *share, failures int) (time.Duration, error) {
	for {
		k.mu.Lock()
		changed, upgraded, pause, failed := s.changed, s.upgraded, s.pause, s.clientFailures-failures
		pod, m := k.pod(s), s.record.Mount
		k.mu.Unlock()
		if upgraded {
			return pause, nil
		}
		now, err := k.o.Broker.Status(s.id)
		switch {
		case err != nil:
			return 0, err
		case failed > 1 && now.Failure != nil:
			return 0, now.Failure
		case pod != nil && finished(pod):
			return 0, &podError{trouble(pod, m)}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, k.unready(ctx, s)
		}
	}
}
