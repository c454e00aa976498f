package node

import (
	"context"
	"io"
	stdlog "log"
	"net"
	"strings"
	"sync"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// trackedListener knows the connections it has accepted, because http.Server forgets those that a stream has hijacked and
// could not close them.
type trackedListener struct {
	net.Listener
	mu    sync.Mutex
	conns map[*trackedConn]struct{}
}

func newTrackedListener(l net.Listener) *trackedListener {
	return &trackedListener{Listener: l, conns: map[*trackedConn]struct{}{}}
}

func (l *trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{Conn: conn, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[tracked] = struct{}{}
	return tracked, nil
}

// CloseAll closes the listener and all its connections. Their errors say only that they were closed before.
func (l *trackedListener) CloseAll() {
	_ = l.Listener.Close()
	l.mu.Lock()
	conns := make([]*trackedConn, 0, len(l.conns))
	for conn := range l.conns {
		conns = append(conns, conn)
	}
	l.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

type trackedConn struct {
	net.Conn
	listener *trackedListener
}

func (c *trackedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// quietLog takes net/http's own messages. Broken handshakes are daily business of a port that scanners and load balancers
// touch: they are worth a debug line.
func quietLog(ctx context.Context) *stdlog.Logger {
	return stdlog.New(lineWriter(func(line string) {
		log.G(ctx).WithField("reason", line).Debug("https api connection")
	}), "", 0)
}

type lineWriter func(string)

var _ io.Writer = lineWriter(nil)

func (w lineWriter) Write(p []byte) (int, error) {
	w(strings.TrimSpace(string(p)))
	return len(p), nil
}
