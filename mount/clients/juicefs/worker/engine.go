package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
	"github.com/sidemount/sidemount/mount/clients/juicefs/volumes"
)

// EngineOptions of an engine process.
type EngineOptions struct {
	// Listener is the inherited socket.
	Listener net.Listener
	// Parent ends when the worker does, or wants the engine to end.
	Parent io.Reader
	// Idle is how long an engine without anything to do lives. Default 5 min.
	Idle time.Duration
	// Prepare parses a file system and sets what is global in the process.
	Prepare func(admin.FileSystem) (*engine.Spec, error)
	// Log gets progress. Default: the standard logger.
	Log *logrus.Entry
}

// ServeEngine serves the commands for one file system, the first one's, until it is idle, hangs, or is to end.
func ServeEngine(ctx context.Context, o EngineOptions) error {
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, o.Parent)
		cancel()
	}()
	h := &host{o: o, touched: time.Now()}
	server := &http.Server{Handler: h.count(admin.NewHandler(h, quiet{})), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(o.Listener) }()
	err := h.watch(ctx, served)
	// A command that waits for a metadata engine that hangs gets its answer; one that hangs itself is left behind.
	last, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	return errors.Join(err, ignoreDeadline(server.Shutdown(last)), h.close(last))
}

// quiet is the log of an engine's commands: the worker has a line for each already.
type quiet struct{}

func (quiet) Infof(string, ...any) {}
func (quiet) Warnf(string, ...any) {}

func ignoreDeadline(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// host opens the file system with the first command that can.
type host struct {
	o EngineOptions

	mu      sync.Mutex // guards what follows
	attempt *attempt   // to open the file system, under way
	failed  bool       // connecting has left something behind that only the process's end removes
	open    *opened
	users   int
	touched time.Time
}

// attempt is one to open the file system. Commands that come meanwhile wait for it together.
type attempt struct {
	format bool
	done   chan struct{}
	open   *opened // valid, as err, when done is closed
	err    error
}

// opened is a file system that is open.
type opened struct {
	administration *engine.Administration
	service        *volumes.Service
	stop           context.CancelFunc
	ended          chan struct{}
}

// count notes that commands run.
func (h *host) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.touch(1)
		defer h.touch(-1)
		next.ServeHTTP(w, r)
	})
}

func (h *host) touch(n int) {
	h.mu.Lock()
	h.users += n
	h.touched = time.Now()
	h.mu.Unlock()
}

// watch returns when the engine shall end.
func (h *host) watch(ctx context.Context, served <-chan error) error {
	ticker := time.NewTicker(min(time.Second, h.o.Idle/4))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-ticker.C:
			if h.over() {
				return nil
			}
		}
	}
}

// over tells whether the engine has nothing to do any more, or nothing it can do.
func (h *host) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != nil {
		if err := h.open.service.Lost(); err != nil {
			h.o.Log.WithError(err).Warn("engine ends, the next command starts another")
			return true
		}
		if h.open.service.Busy() {
			h.touched = time.Now()
		}
	}
	return h.users == 0 && (h.failed || time.Since(h.touched) > h.o.Idle)
}

// openTimeout bounds an attempt: the metadata engine has ten seconds, an object storage that must be tried before formatting has more.
const openTimeout = 40 * time.Second

// service returns what carries out commands, once the file system is open.
func (h *host) service(ctx context.Context, f admin.FileSystem, format bool) (admin.Service, error) {
	for {
		a := h.join(f, format)
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the file system is still being opened: %w", mount.ErrUnavailable, ctx.Err())
		}
		if a.err == nil {
			return a.open.service, nil
		}
		if format && !a.format && errors.Is(a.err, mount.ErrConfig) {
			continue // that one was not allowed to format
		}
		return nil, a.err
	}
}

// join returns the attempt that has succeeded or is under way, or begins one.
func (h *host) join(f admin.FileSystem, format bool) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.attempt == nil {
		a := &attempt{format: format, done: make(chan struct{})}
		h.attempt = a
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
			defer cancel()
			a.open, a.err = h.connect(ctx, f, format)
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.open = a.open; a.err != nil {
				h.attempt, h.failed = nil, errors.Is(a.err, mount.ErrUnavailable)
			}
			close(a.done)
		}()
	}
	return h.attempt
}

func (h *host) connect(ctx context.Context, f admin.FileSystem, format bool) (*opened, error) {
	spec, err := h.o.Prepare(f)
	if err != nil {
		return nil, err
	}
	administration, err := engine.Administer(ctx, spec, format)
	if err != nil {
		return nil, err
	}
	service, err := volumes.New(volumes.Options{
		Meta: administration.Meta, Subdir: spec.Subdir(), Reach: administration.Reach, Log: h.o.Log,
	})
	if err != nil {
		return nil, errors.Join(err, administration.Close())
	}
	running, stop := context.WithCancel(context.Background())
	open := &opened{administration: administration, service: service, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(open.ended)
		if err := service.Run(running); err != nil {
			h.o.Log.WithError(err).Warn("removal of the trash has ended")
		}
	}()
	return open, nil
}

// close ends what runs and disconnects, as far as the metadata engine lets it.
func (h *host) close(ctx context.Context) error {
	h.mu.Lock()
	open := h.open
	h.mu.Unlock()
	if open == nil {
		return nil
	}
	open.stop()
	if open.service.Lost() != nil {
		return nil // every call would hang
	}
	done := make(chan error, 1)
	go func() {
		<-open.ended
		done <- open.administration.Close()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil // the process ends, and nothing depends on what it held
	}
}

// with carries out a command on the file system.
func with[Out any](ctx context.Context, h *host, f admin.FileSystem, format bool, run func(admin.Service) (Out, error)) (Out, error) {
	s, err := h.service(ctx, f, format)
	if err != nil {
		var none Out
		return none, err
	}
	return run(s)
}

var _ admin.Service = (*host)(nil)

// CreateVolume implements admin.Service. It is the only command that formats.
func (h *host) CreateVolume(ctx context.Context, c admin.CreateVolume) (admin.Volume, error) {
	return with(ctx, h, c.FileSystem, true, func(s admin.Service) (admin.Volume, error) { return s.CreateVolume(ctx, c) })
}

// DeleteVolume implements admin.Service.
func (h *host) DeleteVolume(ctx context.Context, c admin.DeleteVolume) error {
	_, err := with(ctx, h, c.FileSystem, false, func(s admin.Service) (struct{}, error) { return struct{}{}, s.DeleteVolume(ctx, c) })
	return err
}

// Volume implements admin.Service.
func (h *host) Volume(ctx context.Context, q admin.VolumeQuery) (admin.Volume, error) {
	return with(ctx, h, q.FileSystem, false, func(s admin.Service) (admin.Volume, error) { return s.Volume(ctx, q) })
}

// ExpandVolume implements admin.Service.
func (h *host) ExpandVolume(ctx context.Context, c admin.ExpandVolume) (admin.Volume, error) {
	return with(ctx, h, c.FileSystem, false, func(s admin.Service) (admin.Volume, error) { return s.ExpandVolume(ctx, c) })
}

// CreateSnapshot implements admin.Service.
func (h *host) CreateSnapshot(ctx context.Context, c admin.CreateSnapshot) (admin.Snapshot, error) {
	return with(ctx, h, c.FileSystem, false, func(s admin.Service) (admin.Snapshot, error) { return s.CreateSnapshot(ctx, c) })
}

// DeleteSnapshot implements admin.Service.
func (h *host) DeleteSnapshot(ctx context.Context, c admin.DeleteSnapshot) error {
	_, err := with(ctx, h, c.FileSystem, false, func(s admin.Service) (struct{}, error) { return struct{}{}, s.DeleteSnapshot(ctx, c) })
	return err
}

// Snapshots implements admin.Service.
func (h *host) Snapshots(ctx context.Context, q admin.SnapshotsQuery) ([]admin.Snapshot, error) {
	return with(ctx, h, q.FileSystem, false, func(s admin.Service) ([]admin.Snapshot, error) { return s.Snapshots(ctx, q) })
}

// Capacity implements admin.Service.
func (h *host) Capacity(ctx context.Context, q admin.CapacityQuery) (admin.Capacity, error) {
	return with(ctx, h, q.FileSystem, false, func(s admin.Service) (admin.Capacity, error) { return s.Capacity(ctx, q) })
}
