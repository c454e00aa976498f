package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/wire"
)

// process is a running client. Its messages and its end arrive as events, in that order.
type process struct {
	pid     int
	held    *holding // what it was started for
	conn    *wire.Conn
	events  chan processEvent
	started time.Time
	// serving is when it said so.
	serving time.Time
	// attached: it has the connection.
	attached bool
	// told: it has been asked to end.
	told bool
	ooms int
}

// processEvent is a message of the client with its files, or its end.
type processEvent struct {
	message wire.Message
	files   []*os.File
	ended   *syscall.WaitStatus
}

// drain bounds how long the last words of a dead client are waited for; they are in the socket already.
const drain = 200 * time.Millisecond

// startProcess starts a client that holds one end of a connection as file 3 and dies with this thread. It must be called on a locked thread.
func startProcess(r *reaper, held *holding, o Options) (*process, error) {
	path, err := exec.LookPath(o.Argv[0])
	if err != nil {
		return nil, fmt.Errorf("find the client: %w", err)
	}
	conn, child, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer child.Close()
	p := &process{held: held, conn: conn, events: make(chan processEvent), started: time.Now(), ooms: countOOMs()}
	pid, ended, err := r.start(func() (int, error) {
		defer raiseOOMScore(o.OOMScore)()
		return syscall.ForkExec(path, o.Argv, &syscall.ProcAttr{
			Env:   o.Env,
			Files: []uintptr{0, 1, 2, child.Fd()},
			Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
		})
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the client %s: %w", path, err)
	}
	p.pid = pid
	go p.watch(ended)
	return p, nil
}

// watch ends after it has handed on the client's end; the supervisor receives until then.
func (p *process) watch(ended <-chan syscall.WaitStatus) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	silent := make(chan struct{})
	go func() {
		defer close(silent)
		for {
			m, files, err := p.conn.Receive(ctx)
			if err != nil {
				return
			}
			p.events <- processEvent{message: m, files: files}
		}
	}()
	status := <-ended
	time.AfterFunc(drain, cancel)
	<-silent
	p.conn.Close()
	p.events <- processEvent{ended: &status}
}

// signal sends a signal to the client and whatever it has started.
func (p *process) signal(s unix.Signal) {
	// The process is not reaped before the supervisor knows of its end, or has just been: then there is nobody to signal.
	_ = unix.Kill(-p.pid, s)
}

// describe says how a client ended.
func (p *process) describe(s syscall.WaitStatus) string {
	switch {
	case s.Signaled() && s.Signal() == syscall.SIGKILL && countOOMs() > p.ooms:
		return "oom"
	case s.Signaled():
		return "signal: " + s.Signal().String()
	default:
		return "exit status " + strconv.Itoa(s.ExitStatus())
	}
}
