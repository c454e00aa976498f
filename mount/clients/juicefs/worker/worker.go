package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount/admin"
)

// Options of a Worker.
type Options struct {
	// Socket is where the worker listens. Engines have theirs in a directory beside it.
	Socket string
	// UIDs are users who may give commands besides root and the worker's own.
	UIDs []uint32
	// Argv starts an engine; see PoolOptions.
	Argv []string
	// Env is added to the engines' environment.
	Env []string
	// Engines is how many file systems can be open at once. Default 32.
	Engines int
	// Log gets a line per command, never one with a secret. Default: the standard logger.
	Log *logrus.Entry
}

// Worker serves the commands on a socket.
type Worker struct{ o Options }

// New prepares a worker.
func New(o Options) (*Worker, error) {
	if o.Socket == "" || len(o.Argv) == 0 {
		return nil, errors.New("worker: socket and argv are needed")
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	return &Worker{o: o}, nil
}

// drainTimeout is how long commands may go on after the worker is to end. Whoever gave them asks again.
const drainTimeout = 5 * time.Second

// Run serves until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	l, err := admin.Listen(w.o.Socket, append([]uint32{0}, w.o.UIDs...))
	if err != nil {
		return err
	}
	// A worker that was killed has left sockets here, and its engines end without them.
	dir := filepath.Join(filepath.Dir(w.o.Socket), ".engines")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return errors.Join(fmt.Errorf("directory for engines: %w", err), l.Close())
	}
	defer os.RemoveAll(dir)
	pool, err := NewPool(PoolOptions{Dir: dir, Argv: w.o.Argv, Env: w.o.Env, Most: w.o.Engines, Log: w.o.Log})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer pool.Close()
	server := &http.Server{Handler: admin.NewHandler(pool, w.o.Log), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	w.o.Log.WithField("socket", w.o.Socket).Info("worker serves")
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		return errors.Join(ignoreDeadline(err), server.Close())
	}
	return nil
}
