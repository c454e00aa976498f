package session

import (
	"context"
	"errors"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/notice"
)

// Notify takes an event of the broker: it is to be the broker's OnEvent. It does not block.
func (k *Keeper) Notify(e broker.Event) {
	h, ok := k.find(e.Session)
	if !ok {
		return
	}
	notice.Tell(k.options.Recorder, k.options.Broker, h.pod, h.volume, e)
	switch e.Reason {
	case broker.SessionLost:
		k.markLost(e.Session)
		k.troubled.Add(e.Session)
	case broker.ClientFailed:
		k.troubled.AddRateLimited(e.Session)
	case broker.ClientStarted, broker.ClientRestarted:
		k.troubled.Forget(e.Session)
	}
	k.options.Wake(h.pod.UID)
}

// markLost remembers that the application has lost its open files.
func (k *Keeper) markLost(id mount.SessionID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h, ok := k.held[id]; ok {
		h.lost = true
		k.held[id] = h
	}
}

// mend resolves the volume of a session anew and opens it again: a lost session gets a new mount, and one that no client has
// served yet gets what has been mended in its Secret. Other sessions stay as they are.
func (k *Keeper) mend(ctx context.Context, id mount.SessionID) {
	h, ok := k.find(id)
	if !ok {
		return
	}
	status, err := k.options.Broker.Status(id)
	lost := errors.Is(err, mount.ErrNotFound)
	if !lost && (err != nil || status.State != mount.Mounted) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	logger := log.G(ctx).WithField("pod", h.pod.Name).WithField("namespace", h.pod.Namespace).WithField("session", id)
	if err := k.reopen(ctx, h); err != nil && ctx.Err() != context.Canceled {
		logger.WithError(err).Warn("session not mended, will retry")
		k.options.Recorder.Event(h.pod, corev1.EventTypeWarning, "FailedMount", err.Error())
		k.troubled.AddRateLimited(id)
		return
	}
	if lost {
		logger.Info("lost session opened again")
	}
	// The pod may have ended meanwhile; then its Release has not seen the new session.
	if _, held := k.find(id); !held {
		if err := k.options.Broker.Close(ctx, id, 0); err != nil {
			logger.WithError(err).Warn("session of an ended pod not closed")
		}
		return
	}
	k.options.Wake(h.pod.UID)
}

func (k *Keeper) reopen(ctx context.Context, h holding) error {
	mounts, err := k.options.Resolver.Resolve(ctx, h.pod)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Volume.Name == h.volume {
			m.Generation = h.generation
			return k.open(ctx, h.pod, m)
		}
	}
	return &sidecar.Error{Reason: sidecar.ReasonVolumeInvalid, Object: "volume " + h.volume, Message: "is not served any more"}
}
