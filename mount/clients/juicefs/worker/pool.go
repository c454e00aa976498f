package worker

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// PoolOptions of a Pool.
type PoolOptions struct {
	// Dir is a directory for the engines' sockets, for this user only.
	Dir string
	// Argv starts an engine: a program that calls ServeEngine.
	Argv []string
	// Env is added to the worker's own environment for engines.
	Env []string
	// Most is how many engines may run at once. One that does nothing makes room for another. Default 32.
	Most int
	// Log gets the engines' comings and goings. Default: the standard logger.
	Log *logrus.Entry
}

// Pool is an admin.Service that hands each command to the engine of its file system. It is safe for concurrent use.
type Pool struct {
	o   PoolOptions
	key []byte

	mu      sync.Mutex
	engines map[string]*process
	number  int
	closed  bool
	waits   sync.WaitGroup
}

var _ admin.Service = (*Pool)(nil)

// NewPool prepares a pool.
func NewPool(o PoolOptions) (*Pool, error) {
	if o.Dir == "" || len(o.Argv) == 0 {
		return nil, errors.New("pool: directory and argv are needed")
	}
	if o.Most == 0 {
		o.Most = 32
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	return &Pool{o: o, key: key, engines: make(map[string]*process)}, nil
}

// Close ends all engines and waits for them.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, e := range p.engines {
		e.end()
	}
	p.mu.Unlock()
	p.waits.Wait()
}

// identity tells file systems apart without holding their secrets.
func (p *Pool) identity(f admin.FileSystem) (string, error) {
	text, err := json.Marshal(admin.FileSystem{Client: f.Client, Config: f.Config, Options: f.Options, Secret: f.Secret})
	if err != nil {
		return "", fmt.Errorf("file system: %w", err)
	}
	mac := hmac.New(sha256.New, p.key)
	mac.Write(text)
	return string(mac.Sum(nil)), nil
}

// acquire returns the engine of a file system, started if there is none. The caller releases it.
func (p *Pool) acquire(f admin.FileSystem) (*process, error) {
	if f.Client != mount.JuiceFS && f.Client != "" {
		return nil, fmt.Errorf("%w: this worker administers file systems of client %q, not %q", mount.ErrConfig, mount.JuiceFS, f.Client)
	}
	id, err := p.identity(f)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: the worker ends", mount.ErrUnavailable)
	}
	if e, ok := p.engines[id]; ok && !e.ended() {
		e.users++
		return e, nil
	}
	if err := p.makeRoom(); err != nil {
		return nil, err
	}
	p.number++
	e, err := start(p.o, p.number)
	if err != nil {
		return nil, err
	}
	e.users = 1
	p.engines[id] = e
	p.waits.Add(1)
	go func() {
		defer p.waits.Done()
		e.wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.engines[id] == e {
			delete(p.engines, id)
		}
	}()
	return e, nil
}

// makeRoom ends the engine that was used longest ago and serves nobody now. mu is held.
func (p *Pool) makeRoom() error {
	if len(p.engines) < p.o.Most {
		return nil
	}
	var oldest *process
	for _, e := range p.engines {
		if e.users == 0 && !e.ended() && (oldest == nil || e.used.Before(oldest.used)) {
			oldest = e
		}
	}
	if oldest == nil {
		return fmt.Errorf("%w: %d file systems are being worked on", admin.ErrBusy, p.o.Most)
	}
	oldest.end()
	return nil
}

func (p *Pool) release(e *process) {
	p.mu.Lock()
	e.users--
	e.used = time.Now()
	p.mu.Unlock()
}

// ask carries out a command on the engine of its file system. An engine may end at any moment, because it was idle or was
// killed; every command may be repeated, so it is, once, with a new engine. What an engine has answered stands.
func ask[Out any](ctx context.Context, p *Pool, f admin.FileSystem, run func(context.Context, admin.Service) (Out, error)) (Out, error) {
	for attempt := 0; ; attempt++ {
		e, err := p.acquire(f)
		if err != nil {
			var none Out
			return none, err
		}
		out, err := run(ctx, e.service)
		p.release(e)
		if err == nil || attempt > 0 || admin.Answered(err) || !e.endsSoon(ctx) {
			return out, err
		}
	}
}

// CreateVolume implements admin.Service.
func (p *Pool) CreateVolume(ctx context.Context, c admin.CreateVolume) (admin.Volume, error) {
	return ask(ctx, p, c.FileSystem, func(ctx context.Context, s admin.Service) (admin.Volume, error) { return s.CreateVolume(ctx, c) })
}

// DeleteVolume implements admin.Service.
func (p *Pool) DeleteVolume(ctx context.Context, c admin.DeleteVolume) error {
	_, err := ask(ctx, p, c.FileSystem, func(ctx context.Context, s admin.Service) (struct{}, error) {
		return struct{}{}, s.DeleteVolume(ctx, c)
	})
	return err
}

// Volume implements admin.Service.
func (p *Pool) Volume(ctx context.Context, q admin.VolumeQuery) (admin.Volume, error) {
	return ask(ctx, p, q.FileSystem, func(ctx context.Context, s admin.Service) (admin.Volume, error) { return s.Volume(ctx, q) })
}

// ExpandVolume implements admin.Service.
func (p *Pool) ExpandVolume(ctx context.Context, c admin.ExpandVolume) (admin.Volume, error) {
	return ask(ctx, p, c.FileSystem, func(ctx context.Context, s admin.Service) (admin.Volume, error) { return s.ExpandVolume(ctx, c) })
}

// CreateSnapshot implements admin.Service.
func (p *Pool) CreateSnapshot(ctx context.Context, c admin.CreateSnapshot) (admin.Snapshot, error) {
	return ask(ctx, p, c.FileSystem, func(ctx context.Context, s admin.Service) (admin.Snapshot, error) { return s.CreateSnapshot(ctx, c) })
}

// DeleteSnapshot implements admin.Service.
func (p *Pool) DeleteSnapshot(ctx context.Context, c admin.DeleteSnapshot) error {
	_, err := ask(ctx, p, c.FileSystem, func(ctx context.Context, s admin.Service) (struct{}, error) {
		return struct{}{}, s.DeleteSnapshot(ctx, c)
	})
	return err
}

// Snapshots implements admin.Service.
func (p *Pool) Snapshots(ctx context.Context, q admin.SnapshotsQuery) ([]admin.Snapshot, error) {
	return ask(ctx, p, q.FileSystem, func(ctx context.Context, s admin.Service) ([]admin.Snapshot, error) { return s.Snapshots(ctx, q) })
}

// Capacity implements admin.Service.
func (p *Pool) Capacity(ctx context.Context, q admin.CapacityQuery) (admin.Capacity, error) {
	return ask(ctx, p, q.FileSystem, func(ctx context.Context, s admin.Service) (admin.Capacity, error) { return s.Capacity(ctx, q) })
}
