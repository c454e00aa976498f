package readiness

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

// wait is how long an answer may wait for a yes. Whoever asks waits a second longer.
const wait = 3 * time.Second

// askers bounds how many are answered at a time; the kubelet asks one by one.
const askers = 16

// Listen binds the socket for questions, in place of one that an earlier process has left; its directory is made. Everybody who sees it may
// ask. The socket stays when the listener is closed.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the status directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old status socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for questions: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("open the status socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers until the listener is closed. reached waits until a state is reached, and says why it is not when its context ends.
func Serve(ctx context.Context, l net.Listener, reached func(ctx context.Context, state string) error) {
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
			answer(ctx, conn, reached)
		})
	}
}

// answer reads the name of a state and says "ok" as soon as it is reached, or after a while why it is not.
func answer(ctx context.Context, conn net.Conn, reached func(context.Context, string) error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_ = conn.SetDeadline(time.Now().Add(wait + time.Second))
	asked, err := bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
	if err != nil {
		return
	}
	text := fine
	switch state := strings.TrimSpace(asked); state {
	case Mounted, Serving:
		if err := reached(ctx, state); err != nil {
			text = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
	default:
		text = "no such state: want " + Mounted + " or " + Serving
	}
	// Whoever has asked may have gone.
	_, _ = io.WriteString(conn, text+"\n")
}

// Ask asks a socket whether the pod has reached a state, and returns nil or the reason why it has not.
func Ask(ctx context.Context, socket, state string) error {
	ctx, cancel := context.WithTimeout(ctx, wait+time.Second)
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
	text, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
	switch text = strings.TrimSpace(text); {
	case text == fine:
		return nil
	case text == "" && err != nil:
		return fmt.Errorf("ask the broker: %w", err)
	}
	return errors.New(text)
}
