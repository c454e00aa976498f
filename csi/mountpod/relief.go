package mountpod

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
)

// noticed is how long a Mount Pod that has been told to end waits for the keeper to see that.
const noticed = 2 * time.Second

// relieve replaces a Mount Pod that is being deleted while it serves: by a drain, an eviction or a person. It serves on until its successor is ready, so that the
// applications see no more than at an upgrade. If there is none in time, it ends, and the next attempt replaces it as one that has gone. The caller
// holds the share's work.
func (k *Keeper) relieve(ctx context.Context, s *share) error {
	v := k.look(s)
	if !k.relievable(v) {
		return nil
	}
	if err := k.o.Broker.Retain(ctx, s.id, k.o.Relief); err != nil {
		return err
	}
	k.change(s, func() { s.relieved, s.relieving = v.pod.UID, true })
	defer k.change(s, func() { s.relieving = false })
	cause := endingCause(v.pod)
	k.metrics.replaced(cause)
	k.o.Log.WithField("session", s.id).WithField("pod", v.pod.Name).WithField("cause", cause).Warn("mount pod is deleted and will be relieved")
	k.o.Recorder.Event(v.pod, corev1.EventTypeWarning, "MountPodReplaced",
		"Mount Pod "+v.pod.Name+" is being deleted; it serves until another one has taken its session over")
	timed, cancel := context.WithTimeout(ctx, k.o.Relief)
	defer cancel()
	volume := v.volume
	if !v.secretKnown {
		volume = mount.Volume{} // after a restart only the present Mount Pod has the Secret, which the broker has got from it
	}
	if _, err := k.succeed(timed, s, volume, successor{Image: v.record.Mount.Image, Secret: v.record.Secret}); err != nil {
		_ = k.o.Broker.Retain(ctx, s.id, 0) // nobody is retained in vain; what has gone needs no word
		return fmt.Errorf("relieve mount pod %s: %w", v.pod.Name, err)
	}
	return nil
}

// retain has Mount Pods that are being deleted serve on, before anybody finds the time to relieve them: a drain deletes all those of a node at once.
func (k *Keeper) retain(ctx context.Context) {
	for {
		id, shutdown := k.departing.Get()
		if shutdown {
			return
		}
		if s := k.of(id); s != nil && k.relievable(k.look(s)) {
			if err := k.retainOne(ctx, id); err != nil {
				k.o.Log.WithError(err).WithField("session", id).Warn("deleted mount pod not asked to serve on")
			}
		}
		k.departing.Done(id)
	}
}

func (k *Keeper) retainOne(ctx context.Context, id mount.SessionID) error {
	ctx, cancel := context.WithTimeout(ctx, noticed)
	defer cancel()
	return k.o.Broker.Retain(ctx, id, k.o.Relief)
}

// relievable tells whether a share's pod is being deleted, serves somebody, and has not been relieved in vain yet.
func (k *Keeper) relievable(v view) bool {
	if v.users == 0 || v.pod == nil || v.pod.DeletionTimestamp == nil || v.pod.UID == v.relieved || !running(v.pod) || !v.record.Served {
		return false
	}
	now, err := k.o.Broker.Status(v.record.Session)
	return err == nil && now.Ready
}
