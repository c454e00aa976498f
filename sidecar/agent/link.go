package agent

import (
	"context"
	"os"
	"time"

	"github.com/sidemount/sidemount/mount/wire"
)

// link keeps a connection to the broker. It dials again whenever the connection breaks; what is said over it is the supervisor's business.
type link struct {
	socket string
	events chan linkEvent
	done   chan struct{}
}

// linkEvent is one of: a new connection (conn), a message on it (message, files), the end of it (lost).
type linkEvent struct {
	conn    *wire.Conn
	message wire.Message
	files   []*os.File
	lost    error
}

// The pauses between attempts to reach a broker. A broker restarts within a second; trying costs a few system calls.
const (
	firstDial   = 10 * time.Millisecond
	longestDial = 200 * time.Millisecond
)

func newLink(socket string) *link {
	return &link{socket: socket, events: make(chan linkEvent), done: make(chan struct{})}
}

// wait returns when run has ended; nobody receives events any more.
func (l *link) wait() {
	for {
		select {
		case e := <-l.events:
			wire.CloseAll(e.files)
			if e.conn != nil {
				e.conn.Close()
			}
		case <-l.done:
			return
		}
	}
}

func (l *link) run(ctx context.Context) {
	defer close(l.done)
	pause := firstDial
	for ctx.Err() == nil {
		conn, err := wire.Dial(ctx, l.socket)
		if err == nil {
			received := l.follow(ctx, conn)
			conn.Close()
			if received {
				pause = firstDial
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestDial)
	}
}

// follow hands on what arrives until the connection breaks, and tells whether anything but a refusal did.
func (l *link) follow(ctx context.Context, conn *wire.Conn) (received bool) {
	l.events <- linkEvent{conn: conn}
	for {
		m, files, err := conn.Receive(ctx)
		if err != nil {
			l.events <- linkEvent{lost: err}
			return received
		}
		received = received || m.Type != wire.Refused
		l.events <- linkEvent{message: m, files: files}
	}
}
