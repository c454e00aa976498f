package solo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// States that can be asked for.
const (
	// Mounted: every session has its mount; no client need have served.
	Mounted = "mounted"
	// Serving: every session's client serves and has answered a request.
	Serving = "serving"
)

// fine is the answer that means yes; every other one is the reason.
const fine = "ok"

// statusWait is how long an answer may wait for a yes. Whoever asks should wait a second longer.
const statusWait = 3 * time.Second

// askers bounds how many are answered at a time; the kubelet asks one by one.
const askers = 16

// listen binds the socket for questions; everybody in the pod who sees it may ask.
func (h *Holder) listen() (net.Listener, error) {
	dir := filepath.Join(h.o.RunDir, "status")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the status directory: %w", err)
	}
	path := filepath.Join(dir, "status.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old status socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for questions: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the status socket: %w", err)
	}
	return l, nil
}

func (h *Holder) serveStatus(ctx context.Context, l net.Listener) {
	room := make(chan struct{}, askers)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		running.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			h.answer(ctx, conn)
		})
	}
}

// answer reads the name of a state and says "ok" as soon as it is reached, or after a while why it is not.
func (h *Holder) answer(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	_ = conn.SetDeadline(time.Now().Add(statusWait + time.Second))
	asked, err := bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
	if err != nil {
		return
	}
	answer := fine
	if err := h.reached(ctx, strings.TrimSpace(asked)); err != nil {
		answer = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	// Whoever has asked may have gone.
	_, _ = io.WriteString(conn, answer+"\n")
}

func (h *Holder) reached(ctx context.Context, state string) error {
	if state != Mounted && state != Serving {
		return fmt.Errorf("no such state: want %s or %s", Mounted, Serving)
	}
	for _, s := range h.o.Sessions {
		if err := h.mounted(ctx, s); err != nil {
			return fmt.Errorf("volume %q: %w", s.Volume, err)
		}
	}
	for _, s := range h.o.Sessions {
		if state == Mounted {
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

// Ask asks a Holder's socket whether the pod has reached a state, and returns nil or the reason why it has not.
func Ask(ctx context.Context, socket, state string) error {
	ctx, cancel := context.WithTimeout(ctx, statusWait+time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("ask the broker: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, state+"\n"); err != nil {
		return fmt.Errorf("ask the broker: %w", err)
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
	switch answer = strings.TrimSpace(answer); {
	case answer == fine:
		return nil
	case answer == "" && err != nil:
		return fmt.Errorf("ask the broker: %w", err)
	}
	return errors.New(answer)
}
