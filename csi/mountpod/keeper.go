package mountpod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/sidemount/sidemount/mount"
)

const (
	// workers is how many shares are worked at once: to end one may take its grace period.
	workers = 8
	// retryLeast and retryMost are the pauses between attempts to put a share right.
	retryLeast = 500 * time.Millisecond
	retryMost  = 30 * time.Second
	// attempt bounds what is not the work of an Attempt.
	attempt = 30 * time.Second
	// barrier is the ID of no session: it has no lead.
	barrier mount.SessionID = "none"
)

// Keeper keeps the Mount Pods of a node. Its methods may be called from any goroutine.
type Keeper struct {
	o       Options
	store   store
	secrets []byte // the node's key for hashes of Secrets; set before up is closed
	metrics *metrics
	// up is closed when the state is read, synced when all pods are known, down when Run has ended.
	up, synced, down chan struct{}
	// troubled has sessions that need work, wanted those that shall have another client, departing those whose Mount Pod is being deleted; unconfirmed has targets
	// that must be mount points by now.
	troubled    workqueue.TypedRateLimitingInterface[mount.SessionID]
	wanted      workqueue.TypedInterface[mount.SessionID]
	departing   workqueue.TypedInterface[mount.SessionID]
	unconfirmed workqueue.TypedDelayingInterface[string]
	targets     locks

	// mu guards what follows and all fields of shares and references; nothing is called with it held.
	mu         sync.Mutex
	shares     map[mount.SessionID]*share
	byKey      map[string]*share
	references map[string]*reference
	// pods are all Mount Pods of this node as they were last seen, by session and name.
	pods map[mount.SessionID]map[string]*corev1.Pod
}

// New checks the options; errors wrap ErrOptions. The state is read by Run.
func New(o Options) (*Keeper, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[mount.SessionID](retryLeast, retryMost)
	return &Keeper{
		o:           o,
		store:       store{dir: o.StateDir, log: o.Log},
		metrics:     newMetrics(),
		up:          make(chan struct{}),
		synced:      make(chan struct{}),
		down:        make(chan struct{}),
		troubled:    workqueue.NewTypedRateLimitingQueue(limiter),
		wanted:      workqueue.NewTyped[mount.SessionID](),
		departing:   workqueue.NewTyped[mount.SessionID](),
		unconfirmed: workqueue.NewTypedDelayingQueue[string](),
		shares:      map[mount.SessionID]*share{},
		byKey:       map[string]*share{},
		references:  map[string]*reference{},
		pods:        map[mount.SessionID]map[string]*corev1.Pod{},
	}, nil
}

// Run reads the state, and keeps the Mount Pods until ctx ends. Pods and sessions outlive it, and the next keeper finds them. The broker must run.
// It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	defer close(k.down)
	switch err := k.restore(ctx); {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer k.troubled.ShutDown()
	defer k.wanted.ShutDown()
	defer k.departing.ShutDown()
	defer k.unconfirmed.ShutDown()
	defer cancel()
	for range workers {
		running.Go(func() { k.work(ctx) })
	}
	for range successions {
		running.Go(func() { k.renew(ctx) })
	}
	running.Go(func() { k.retain(ctx) })
	running.Go(func() { k.confirm(ctx) })
	close(k.up)
	if err := k.o.Pods.Watch(ctx, watcher{k}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch mount pods: %w", err)
	}
	<-ctx.Done()
	return nil
}

// restore reads what an earlier keeper has left.
func (k *Keeper) restore(ctx context.Context) error {
	if err := k.store.prepare(); err != nil {
		return err
	}
	var err error
	if k.secrets, err = k.store.key(); err != nil {
		return err
	}
	if k.o.BootID == "" {
		if k.o.BootID, err = bootID(); err != nil {
			return err
		}
	}
	// The broker finds its recorded sessions before it answers this: what it does not know afterwards is lost.
	if err := k.o.Broker.Close(ctx, barrier, 0); err != nil {
		return fmt.Errorf("wait for the broker: %w", err)
	}
	shares, err := k.store.readShares()
	if err != nil {
		return err
	}
	references, err := k.store.readReferences()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range shares {
		s := newShare(r)
		s.recorded = true
		k.shares[r.Session], k.byKey[r.Key] = s, s
	}
	for _, r := range references {
		if err := k.recall(r); err != nil {
			return err
		}
	}
	for id := range k.shares {
		k.troubled.Add(id)
	}
	k.o.Log.WithField("shares", len(k.shares)).WithField("references", len(k.references)).Info("mount pods restored")
	return nil
}

// recall takes up a recorded reference, unless its mount cannot be there any more or its share was never recorded. The caller holds mu.
func (k *Keeper) recall(r referenceRecord) error {
	s := k.shares[r.Session]
	if s == nil || r.Boot != k.o.BootID {
		return k.store.dropReference(r.Target)
	}
	k.adopt(s, r)
	k.unconfirmed.AddAfter(r.Target, k.o.Linger)
	return nil
}

// adopt adds a reference to a share. The caller holds mu.
func (k *Keeper) adopt(s *share, r referenceRecord) {
	ref := &reference{record: r, share: s, touched: time.Now()}
	s.users[r.Target] = ref
	k.references[r.Target] = ref
}

// bootID names the present boot of the host (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the host's boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ready waits until Run has read the state.
func (k *Keeper) ready(ctx context.Context) error {
	select {
	case <-k.down:
		return ErrEnded
	default:
	}
	select {
	case <-k.up:
		return nil
	case <-k.down:
		return ErrEnded
	case <-ctx.Done():
		return fmt.Errorf("wait for the keeper of mount pods: %w", ctx.Err())
	}
}

// Check returns nil if the keeper has read its state and runs, else an error that wraps mount.ErrUnavailable.
func (k *Keeper) Check(context.Context) error {
	select {
	case <-k.down:
		return ErrEnded
	default:
	}
	select {
	case <-k.up:
		return nil
	default:
		return fmt.Errorf("the keeper of mount pods is starting: %w", mount.ErrUnavailable)
	}
}

// known waits until all Mount Pods of this node have been seen.
func (k *Keeper) known(ctx context.Context) error {
	select {
	case <-k.synced:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return &podError{"the API server has not told yet which Mount Pods there are"}
	}
}

// work puts shares right, one after the other.
func (k *Keeper) work(ctx context.Context) {
	for {
		id, shutdown := k.troubled.Get()
		if shutdown {
			return
		}
		k.tend(ctx, id)
		k.troubled.Done(id)
	}
}

// tend does what a share needs, and plans the next attempt if that fails.
func (k *Keeper) tend(ctx context.Context, id mount.SessionID) {
	ctx, cancel := context.WithTimeout(ctx, k.o.Attempt+max(k.o.Grace, k.o.Relief))
	defer cancel()
	logger := k.o.Log.WithField("session", id)
	err := k.reconcile(ctx, id)
	switch {
	case err == nil:
		k.troubled.Forget(id)
	case errors.Is(err, context.Canceled):
	case errors.Is(err, ErrSecretUnknown):
		logger.WithError(err).Warn("lost session waits for its next publish")
		k.troubled.Forget(id)
	default:
		logger.WithError(err).Warn("share is not right, will retry")
		k.troubled.AddRateLimited(id)
	}
}
