package podsession

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/readiness"
)

// Broker holds sessions. *broker.Broker is one.
type Broker interface {
	Open(ctx context.Context, r broker.Request) (broker.Session, error)
	Close(ctx context.Context, id mount.SessionID, grace time.Duration) error
	Status(id mount.SessionID) (broker.Session, error)
	Sessions() []broker.Session
	Wait(ctx context.Context, id mount.SessionID) error
	SocketDir(id mount.SessionID) string
}

// Options of a Keeper.
type Options struct {
	// Broker makes and holds the sessions. Required.
	Broker Broker
	// MountsDir holds the mount points of the sessions, in a tree that is shared with the host. Required.
	MountsDir string
	// Grace is how long a client may still flush when a session is closed. As a rule it has ended with its pod before, and then it takes
	// none. Default 30 s.
	Grace time.Duration
	// Recorder takes events about the pods. Required.
	Recorder record.EventRecorder
	// Log receives what happens. Default logrus.StandardLogger().
	Log logrus.FieldLogger
}

// Keeper keeps sessions of pods. Its methods may be called from any goroutine while it runs.
type Keeper struct {
	o    Options
	down chan struct{} // closed when Run has ended
	// accepted has listeners that nobody serves yet; nobody waits for it with mu held.
	accepted chan question

	mu        sync.Mutex // guards what follows
	listeners map[mount.SessionID]net.Listener
	owners    map[mount.SessionID]runtime.Object
	// opened is closed when the next session is there.
	opened chan struct{}
}

// question is a socket on which probes ask about a session.
type question struct {
	id mount.SessionID
	l  net.Listener
}

// barrier is the ID of no session.
const barrier mount.SessionID = "none"

// ErrEnded means that Run has ended.
var ErrEnded = errors.New("the keeper of pods' sessions has ended")

// New checks the options.
func New(o Options) (*Keeper, error) {
	if o.Broker == nil || o.MountsDir == "" || o.Recorder == nil {
		return nil, errors.New("keeper of pods' sessions needs a broker, a directory of mounts and a recorder of events")
	}
	if o.Grace == 0 {
		o.Grace = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	o.MountsDir = filepath.Clean(o.MountsDir)
	return &Keeper{
		o: o, down: make(chan struct{}), accepted: make(chan question),
		listeners: map[mount.SessionID]net.Listener{}, owners: map[mount.SessionID]runtime.Object{}, opened: make(chan struct{}),
	}, nil
}

// ID is the session of a volume in a pod. volume is what the kubelet calls it: the PersistentVolume's name, or the name of an inline
// volume.
func (k *Keeper) ID(pod types.UID, volume string) mount.SessionID {
	return sidecar.SessionID(pod, volume)
}

// Run answers the questions of startup probes until ctx ends; sessions go on then. The broker must run. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer k.hangUp()
	defer close(k.down)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serving.Go(func() { k.resume(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-k.accepted:
			serving.Go(func() {
				readiness.Serve(ctx, q.l, func(ctx context.Context, state string) error { return k.reached(ctx, q.id, state) })
			})
		}
	}
}

func (k *Keeper) reached(ctx context.Context, id mount.SessionID, state string) error {
	if state == readiness.Serving {
		return k.o.Broker.Wait(ctx, id)
	}
	_, err := k.o.Broker.Status(id)
	return err
}

// resume listens again for the sessions that an earlier process has listened for.
func (k *Keeper) resume(ctx context.Context) {
	// The broker has found its recorded sessions when it answers this.
	if err := k.o.Broker.Close(ctx, barrier, 0); err != nil {
		if ctx.Err() == nil {
			k.o.Log.WithError(err).Error("sessions of pods not found again")
		}
		return
	}
	k.wake()
	for _, s := range k.o.Broker.Sessions() {
		if _, err := os.Lstat(k.statusSocket(s.ID)); err != nil {
			continue // a Mount Pod's, which nobody asks about
		}
		if err := k.listen(ctx, s.ID); err != nil && ctx.Err() == nil {
			k.o.Log.WithError(err).WithField("session", s.ID).Error("startup probes of a session get no answer")
		}
	}
}

func (k *Keeper) statusSocket(id mount.SessionID) string {
	return filepath.Join(k.o.Broker.SocketDir(id), sidecar.SessionStatus)
}

// listen makes the socket for questions about a session, once.
func (k *Keeper) listen(ctx context.Context, id mount.SessionID) error {
	k.mu.Lock()
	if k.listeners[id] != nil {
		k.mu.Unlock()
		return nil
	}
	l, err := readiness.Listen(k.statusSocket(id))
	if err == nil {
		k.listeners[id] = l
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case k.accepted <- question{id, l}:
		return nil
	case <-k.down:
		err = ErrEnded
	case <-ctx.Done():
		err = ctx.Err()
	}
	k.forget(id)
	return err
}

func (k *Keeper) forget(id mount.SessionID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.listeners[id]; l != nil {
		_ = l.Close() // nobody asks any more
		delete(k.listeners, id)
	}
}

func (k *Keeper) hangUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, l := range k.listeners {
		_ = l.Close()
		delete(k.listeners, id)
	}
}

// Open opens the session of a pod's volume, or finds it open, and returns where it is mounted. It does not wait for a client. Events go to the pod, which may
// be a reference.
func (k *Keeper) Open(ctx context.Context, id mount.SessionID, m sidecar.Mount, pod runtime.Object) (string, error) {
	k.own(id, pod)
	s, err := k.o.Broker.Open(ctx, broker.Request{
		ID: id, Target: filepath.Join(k.o.MountsDir, string(id)), Volume: m.Volume, UID: uint32(m.UID), GID: uint32(m.GID),
	})
	if err != nil {
		return "", err
	}
	k.wake()
	return s.Target, k.listen(ctx, id)
}

// SocketDir is the directory that a session's sidecar is to see.
func (k *Keeper) SocketDir(id mount.SessionID) string { return k.o.Broker.SocketDir(id) }

// wake has those look again who wait for a session.
func (k *Keeper) wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.opened)
	k.opened = make(chan struct{})
}

// Await waits until a session is open. The volumes of a pod are published side by side, and nobody knows which one comes first.
func (k *Keeper) Await(ctx context.Context, id mount.SessionID) error {
	for {
		k.mu.Lock()
		opened := k.opened
		k.mu.Unlock()
		if s, err := k.o.Broker.Status(id); err == nil && s.State != mount.Requested && s.State != mount.Closed {
			return nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return fmt.Errorf("the volume of session %s is not published yet: %w", id, ctx.Err())
		}
	}
}

// Close ends a session; its client may write out what it still has.
func (k *Keeper) Close(ctx context.Context, id mount.SessionID) error {
	k.forget(id)
	if err := k.o.Broker.Close(ctx, id, k.o.Grace); err != nil {
		return err
	}
	k.disown(id)
	err := os.Remove(filepath.Join(k.o.MountsDir, string(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
