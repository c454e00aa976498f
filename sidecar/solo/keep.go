package solo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

const (
	// longestRetry is the longest pause between two attempts to get a volume.
	longestRetry = 30 * time.Second
	// attempt bounds one of them.
	attempt = 30 * time.Second
)

// onEvent notices sessions that need their volume anew: a lost one must be opened again, and one that no client has ever served may
// have got what has been mended meanwhile.
func (h *Holder) onEvent(e broker.Event) {
	switch e.Reason {
	case broker.SessionLost:
		h.want(e.Session, errors.New(e.Message))
	case broker.ClientFailed:
		if s, err := h.broker.Status(e.Session); err == nil && s.State == mount.Mounted {
			h.want(e.Session, s.Failure)
		}
	}
}

func (h *Holder) want(id mount.SessionID, why error) {
	h.mu.Lock()
	h.wanted[id] = true
	h.note(id, why)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// note records why a session has no volume; mu is held.
func (h *Holder) note(id mount.SessionID, why error) {
	if why == nil {
		delete(h.reasons, id)
	} else {
		h.reasons[id] = why
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// keep gets volumes and opens sessions until ctx ends.
func (h *Holder) keep(ctx context.Context) {
	for _, s := range h.o.Sessions {
		h.want(s.ID, errors.New("not asked for yet"))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := h.o.Retry
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
			// What a client cannot serve is not asked for more often than what the service does not have.
			if pause == h.o.Retry {
				break
			}
			continue
		case <-timer.C:
		}
		began := time.Now()
		if h.round(ctx) {
			pause = h.o.Retry
			timer.Stop()
			continue
		}
		timer.Reset(time.Until(began.Add(pause)))
		pause = min(2*pause, longestRetry)
	}
}

// round tries to satisfy every wanted session, and tells whether none is left.
func (h *Holder) round(ctx context.Context) bool {
	var sessions []Session
	var names []string
	h.mu.Lock()
	for _, s := range h.o.Sessions {
		if h.wanted[s.ID] {
			sessions, names = append(sessions, s), append(names, s.Volume)
			// What happens to the session from now on counts anew.
			h.wanted[s.ID] = false
		}
	}
	h.mu.Unlock()
	if len(sessions) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	results, err := h.o.Granter.Ask(ctx, names)
	done := true
	for i, s := range sessions {
		failure := err
		if failure == nil && results[i].Error != nil {
			failure = results[i].Error
		}
		if failure == nil {
			failure = h.open(ctx, s, *results[i].Volume)
		}
		h.mu.Lock()
		h.wanted[s.ID] = h.wanted[s.ID] || failure != nil
		h.note(s.ID, failure)
		h.mu.Unlock()
		if failure != nil {
			done = false
			h.o.Log.WithError(failure).WithField("volume", s.Volume).Warn("volume not opened, will retry")
		}
	}
	return done
}

func (h *Holder) open(ctx context.Context, s Session, v mount.Volume) error {
	if v.Name != s.Volume {
		return fmt.Errorf("asked for volume %q and got %q", s.Volume, v.Name)
	}
	_, err := h.broker.Open(ctx, broker.Request{
		ID: s.ID, Target: filepath.Join(h.o.MountsDir, s.Volume), Volume: v, UID: s.UID, GID: s.GID,
	})
	return err
}
