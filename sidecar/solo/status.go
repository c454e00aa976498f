package solo

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar/readiness"
)

// statusSocket is where a kubelet's probes ask.
func (h *Holder) statusSocket() string { return filepath.Join(h.o.RunDir, "status", "status.sock") }

func (h *Holder) reached(ctx context.Context, state string) error {
	for _, s := range h.o.Sessions {
		if err := h.mounted(ctx, s); err != nil {
			return fmt.Errorf("volume %q: %w", s.Volume, err)
		}
	}
	for _, s := range h.o.Sessions {
		if state == readiness.Mounted {
			break
		}
		if err := h.broker.Wait(ctx, s.ID); err != nil {
			return fmt.Errorf("volume %q: %w", s.Volume, err)
		}
	}
	return nil
}

// mounted waits for a session's mount. One that the broker has found again counts, although its volume was not granted anew yet.
func (h *Holder) mounted(ctx context.Context, s Session) error {
	for {
		h.mu.Lock()
		why, changed := h.reasons[s.ID], h.changed
		h.mu.Unlock()
		if now, err := h.broker.Status(s.ID); err == nil && now.State != mount.Requested && now.State != mount.Closed {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if why != nil {
				return why
			}
			return ctx.Err()
		}
	}
}
