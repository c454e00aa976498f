package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sidemount/sidemount/mount/admin"
)

// endTimeout is how long an engine may take to end by itself.
const endTimeout = 10 * time.Second

// process is an engine as the worker sees it.
type process struct {
	cmd     *exec.Cmd
	service admin.Service
	stdin   io.Closer // its end tells the engine to end
	socket  string
	log     interface{ Infof(string, ...any) }
	done    chan struct{}
	ending  sync.Once

	users int       // guarded by Pool.mu
	used  time.Time // guarded by Pool.mu
}

// start starts an engine. Its socket listens before it runs, so that there is nothing to wait for.
func start(o PoolOptions, number int) (e *process, err error) {
	socket := filepath.Join(o.Dir, "engine-"+strconv.Itoa(number)+".sock")
	l, err := admin.Listen(socket, nil)
	if err != nil {
		return nil, err
	}
	defer l.Close() // the engine has the only one from here on
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, fmt.Errorf("engine's socket: %w", err)
	}
	defer file.Close()
	cmd := exec.Command(o.Argv[0], o.Argv[1:]...)
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start an engine: %w", err), stdin.Close())
	}
	o.Log.Infof("engine %d runs as process %d", number, cmd.Process.Pid)
	return &process{
		cmd: cmd, service: admin.NewClient(socket), stdin: stdin, socket: socket, log: o.Log, done: make(chan struct{}),
	}, nil
}

// wait waits for the engine's end and cleans up.
func (e *process) wait() {
	err := e.cmd.Wait()
	_ = os.Remove(e.socket)
	close(e.done)
	state := "in order"
	if err != nil {
		state = err.Error()
	}
	e.log.Infof("engine process %d has ended: %s", e.cmd.Process.Pid, state)
}

func (e *process) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// end asks the engine to end, and kills it if it does not.
func (e *process) end() {
	e.ending.Do(func() {
		_ = e.stdin.Close()
		go func() {
			timer := time.NewTimer(endTimeout)
			defer timer.Stop()
			select {
			case <-e.done:
			case <-timer.C:
				_ = e.cmd.Process.Kill() // os.Process knows when it has been waited for
			}
		}()
	})
}

// dyingTimeout is how long an engine whose socket has failed may take to be seen as ended.
const dyingTimeout = time.Second

// endsSoon tells whether the engine has ended, or does at once: its socket closes a moment before its process is reaped.
func (e *process) endsSoon(ctx context.Context) bool {
	timer := time.NewTimer(dyingTimeout)
	defer timer.Stop()
	select {
	case <-e.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return e.ended()
}
