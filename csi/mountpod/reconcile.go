package mountpod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sidemount/sidemount/mount"
)

// reconcile does what a share needs now: what it lacks if it has users, its end if it has had none for its delay. Without a share, pods of the
// session are nobody's.
func (k *Keeper) reconcile(ctx context.Context, id mount.SessionID) error {
	s := k.of(id)
	if s == nil {
		return k.sweep(ctx, id)
	}
	k.mu.Lock()
	succeeding := s.succeeding
	k.mu.Unlock()
	if succeeding {
		return nil
	}
	if err := s.work.lock(ctx); err != nil {
		return err
	}
	defer s.work.unlock()
	if left, unused := k.unused(s); unused {
		if left > 0 {
			k.troubled.AddAfter(id, left)
			return nil
		}
		defer func() { k.change(s, func() { s.ending = false }) }()
		return k.finish(ctx, s)
	}
	if err := k.ensure(ctx, s); err != nil {
		return err
	}
	if now, err := k.o.Broker.Status(id); err == nil && now.Ready {
		if err := errors.Join(k.served(s), k.settleSuccessor(ctx, s)); err != nil {
			return err
		}
		if err := k.relieve(ctx, s); err != nil {
			return err
		}
		if k.wants(s) {
			k.wanted.Add(id)
		}
	}
	v := k.look(s)
	if v.record.Next != nil {
		return k.sweep(ctx, id, v.record.Pod, v.record.Next.Pod)
	}
	return k.sweep(ctx, id, v.record.Pod)
}

// unused tells whether a share has no users, and for how long it is to be kept all the same. When that is over, it counts as ending before
// somebody can acquire it.
func (k *Keeper) unused(s *share) (left time.Duration, unused bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(s.users) > 0 {
		return 0, false
	}
	left = s.record.Mount.Pod.DeleteDelay - time.Since(s.idle)
	s.ending = left <= 0
	return left, true
}

// ensure gives a share what it lacks: intent on disk, session, pod. The caller holds its work.
func (k *Keeper) ensure(ctx context.Context, s *share) error {
	err := k.ensureSession(ctx, s)
	if err == nil {
		err = k.ensurePod(ctx, s)
	}
	if !errors.Is(err, context.Canceled) {
		k.change(s, func() { s.refusal = err })
	}
	return err
}

// ensureSession opens the session unless it is there. A new mount has a new generation, which is recorded before it can exist.
func (k *Keeper) ensureSession(ctx context.Context, s *share) error {
	v := k.look(s)
	if _, err := k.o.Broker.Status(v.record.Session); err == nil {
		return nil
	}
	if !v.secretKnown {
		return fmt.Errorf("open session %s: %w", v.record.Session, ErrSecretUnknown)
	}
	if err := k.save(s, func(r *shareRecord) { r.Generation++ }); err != nil {
		return err
	}
	if err := k.step("open"); err != nil {
		return err
	}
	_, err := k.o.Broker.Open(ctx, k.request(v))
	if errors.Is(err, mount.ErrClosed) {
		return fmt.Errorf("%w: %w", mount.ErrUnavailable, err)
	}
	return err
}

// ensurePod makes the Mount Pod unless it is there and may yet serve. One that is being deleted while it serves is relieved, see relieve; any other one is
// replaced at once: the broker gives the session to the next agent when the processes of this one have gone. One that has ended is replaced after a
// pause that grows.
func (k *Keeper) ensurePod(ctx context.Context, s *share) error {
	if err := k.known(ctx); err != nil {
		return err
	}
	v := k.look(s)
	switch {
	case v.record.Pod == "":
		return k.create(ctx, s, newName(k.o.NodeName, v.record.Mount.Volume.ID))
	case v.pod == nil && !v.created:
		return k.create(ctx, s, v.record.Pod)
	case v.pod == nil:
		return k.replace(ctx, s, "deleted", "the Mount Pod was deleted")
	case k.relievable(v):
		return nil
	case v.pod.DeletionTimestamp != nil:
		return k.replace(ctx, s, endingCause(v.pod), "Mount Pod "+v.pod.Name+" is being deleted")
	case finished(v.pod):
		return k.replace(ctx, s, endingCause(v.pod), trouble(v.pod, v.record.Mount))
	}
	return nil
}

// endingCause is a word for metrics.
func endingCause(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason != "" {
			return c.Reason
		}
	}
	switch {
	case pod.Status.Reason != "":
		return pod.Status.Reason
	case pod.DeletionTimestamp != nil:
		return "deleted"
	}
	return string(pod.Status.Phase)
}

// The pauses between a pod and the one that replaces it.
const (
	firstPause   = time.Second
	longestPause = time.Minute
	// settled is how long a pod must have lasted for its predecessors' ends to be forgotten.
	settled = 5 * time.Minute
)

// replace makes another pod in the place of one that has gone or is going.
func (k *Keeper) replace(ctx context.Context, s *share, cause, text string) error {
	k.mu.Lock()
	if time.Since(s.replaced) > settled {
		s.failures = 0
	}
	wait := pause(s.failures) - time.Since(s.replaced)
	volume, name, pod := s.record.Mount.Volume.ID, s.record.Pod, k.pod(s)
	s.cause = text
	k.mu.Unlock()
	if wait > 0 {
		k.troubled.AddAfter(s.id, wait)
		return nil
	}
	k.change(s, func() { s.replaced, s.failures = time.Now(), s.failures+1 })
	k.metrics.replaced(cause)
	k.o.Log.WithField("session", s.id).WithField("pod", name).WithField("cause", cause).Warn("mount pod is replaced")
	if pod != nil {
		k.o.Recorder.Event(pod, corev1.EventTypeWarning, "MountPodReplaced", text+"; another one takes its session over")
	}
	return k.create(ctx, s, newName(k.o.NodeName, volume))
}

// pause is how long to wait after the last replacement: not at all after the first.
func pause(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	p := firstPause
	for range failures - 1 {
		p = min(2*p, longestPause)
	}
	return p
}

// create makes the pod of this name. The name is recorded first, so that a keeper that dies now finds the pod again.
func (k *Keeper) create(ctx context.Context, s *share, name string) error {
	if err := k.save(s, func(r *shareRecord) { r.Pod = name }); err != nil {
		return err
	}
	k.change(s, func() { s.created = false })
	v := k.look(s)
	if err := k.step("create pod"); err != nil {
		return err
	}
	pod, err := k.post(ctx, v, name, v.record.Mount.Image, v.record.Agent)
	if err != nil {
		return err
	}
	k.note(pod)
	k.change(s, func() { s.created = true })
	return nil
}

// post creates a pod, or finds the one that an interrupted attempt has created.
func (k *Keeper) post(ctx context.Context, v view, name, image string, agent int) (*corev1.Pod, error) {
	m := v.record.Mount
	m.Image = image
	pod, err := k.o.Pods.Create(ctx, podOf(&k.o, m, place{
		session: v.record.Session, name: name, sessionDir: k.o.Broker.SocketDir(v.record.Session), agent: agent,
	}))
	if apierrors.IsAlreadyExists(err) {
		pod, err = k.o.Pods.Get(ctx, name)
	}
	if err == nil {
		return pod, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("create mount pod %s: %w", name, err)
	}
	return nil, refused(err)
}

// sweep deletes the pods of a session but those named.
func (k *Keeper) sweep(ctx context.Context, id mount.SessionID, keep ...string) error {
	k.mu.Lock()
	var rest []*corev1.Pod
	for name, pod := range k.pods[id] {
		if !slices.Contains(keep, name) && pod.DeletionTimestamp == nil {
			rest = append(rest, pod)
		}
	}
	k.mu.Unlock()
	var errs []error
	for _, pod := range rest {
		if err := k.o.Pods.Delete(ctx, pod.Name, pod.UID, k.o.Grace); err != nil {
			errs = append(errs, fmt.Errorf("delete mount pod %s: %w", pod.Name, err))
		}
	}
	return errors.Join(errs...)
}

// step is where a test ends the keeper.
func (k *Keeper) step(what string) error { return k.store.at(what) }
