package mountpod

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// share is a session with its Mount Pod. The keeper's mu guards its fields; work is held, without mu, by whoever changes the session, the pod or
// the record.
type share struct {
	id   mount.SessionID
	work semaphore

	record   shareRecord
	recorded bool // the record on disk is this one
	// secret is the one that the record has the hash of; unknown after a restart until an Acquire brings it.
	secret      mount.Secret
	secretKnown bool
	users       map[string]*reference
	// idle is since when there are no users.
	idle time.Time
	// ending says that finish is at work: whoever wants the share waits for it.
	ending bool
	// created says that the recorded pod has been at the API server.
	created bool
	// cause is why the pod before the present one ended, until a client serves again.
	cause string
	// replaced is when the last pod was replaced, failures how many were in a row.
	replaced time.Time
	failures int
	// relieved is the pod whose successor was asked for when it was deleted, relieving that this is going on.
	relieved  types.UID
	relieving bool
	// asked is the last upgrade that an annotation has asked for: the pod's uid and the image.
	asked string
	// succeeding says that a successor is being made: whoever wants the share right leaves it alone.
	succeeding bool
	// rotated is a changed Secret that is to be handed over, handed the last that was tried, at rotatedAt.
	rotated, handed *rotation
	rotatedAt       time.Time
	// refusal is why the last attempt to open the session or make the pod failed.
	refusal error
	// clientFailures counts what the broker told of clients that could not start.
	clientFailures int
	// changed is closed at the next change of anything that somebody may wait for.
	changed chan struct{}
}

// reference is a target that uses a share.
type reference struct {
	record referenceRecord
	share  *share
	// touched is when it was last acquired.
	touched time.Time
}

func newShare(r shareRecord) *share {
	return &share{
		id: r.Session, work: make(semaphore, 1), record: r, users: map[string]*reference{}, idle: time.Now(), changed: make(chan struct{}),
	}
}

// wake tells everybody who waits for a change. The caller holds the keeper's mu.
func (s *share) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// volume is the volume with its Secret as the client shall serve it.
func (s *share) volume() mount.Volume {
	v := s.record.Mount.Volume
	v.Name, v.Secret = volumeName, s.secret
	return v
}

// pod returns the share's pod as it was last seen, nil if it was not. The caller holds mu.
func (k *Keeper) pod(s *share) *corev1.Pod { return k.pods[s.id][s.record.Pod] }

// view is what decisions about a share are made from.
type view struct {
	record      shareRecord
	recorded    bool
	secretKnown bool
	volume      mount.Volume
	users       int
	idle        time.Time
	created     bool
	ending      bool
	relieved    types.UID
	pod         *corev1.Pod
}

func (k *Keeper) look(s *share) view {
	k.mu.Lock()
	defer k.mu.Unlock()
	return view{
		record: s.record, recorded: s.recorded, secretKnown: s.secretKnown, volume: s.volume(), users: len(s.users), idle: s.idle, created: s.created,
		ending: s.ending, relieved: s.relieved, pod: k.pod(s),
	}
}

// change changes a share and wakes whoever waits for it.
func (k *Keeper) change(s *share, do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	do()
	s.wake()
}

// save records a changed share on disk, and only then in memory; do is called for both. The caller holds the share's work.
func (k *Keeper) save(s *share, do func(*shareRecord)) error {
	k.mu.Lock()
	r, recorded := s.record, s.recorded
	k.mu.Unlock()
	before := r
	do(&r)
	if recorded && same(before, r) {
		return nil
	}
	if err := k.store.putShare(r); err != nil {
		return err
	}
	k.change(s, func() {
		do(&s.record)
		s.recorded = true
	})
	return nil
}

// same compares what save changes.
func same(a, b shareRecord) bool {
	return a.Key == b.Key && a.Secret == b.Secret && a.Pod == b.Pod && a.Generation == b.Generation && a.Served == b.Served && a.Mount.Image == b.Mount.Image &&
		a.Agent == b.Agent && a.LastAgent == b.LastAgent && a.Next == b.Next
}

// of returns the share of a session, nil if there is none.
func (k *Keeper) of(id mount.SessionID) *share {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shares[id]
}

// semaphore is a lock that can be waited for under a deadline.
type semaphore chan struct{}

func (s semaphore) lock(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	default:
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another operation on the volume is under way: %w", ctx.Err())
	}
}

func (s semaphore) unlock() { <-s }

// locks are locks by name; the zero value has none.
type locks struct {
	mu   sync.Mutex
	held map[string]*namedLock
}

type namedLock struct {
	semaphore
	users int
}

// lock takes the lock of a name and returns what releases it.
func (l *locks) lock(ctx context.Context, name string) (func(), error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*namedLock{}
	}
	n := l.held[name]
	if n == nil {
		n = &namedLock{semaphore: make(semaphore, 1)}
		l.held[name] = n
	}
	n.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(l.held, name)
		}
	}
	if err := n.semaphore.lock(ctx); err != nil {
		leave()
		return nil, err
	}
	return func() {
		n.unlock()
		leave()
	}, nil
}

// userPods are the pods that use a share. The caller holds mu.
func (s *share) userPods() []*corev1.Pod {
	seen := map[types.UID]bool{}
	var pods []*corev1.Pod
	for _, ref := range s.users {
		if r := ref.record; r.UID != "" && !seen[r.UID] {
			seen[r.UID] = true
			pods = append(pods, objectOf(r))
		}
	}
	return pods
}

func objectOf(r referenceRecord) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.APIVersion, pod.Kind = "v1", "Pod"
	pod.Namespace, pod.Name, pod.UID = r.Namespace, r.Name, r.UID
	return pod
}

// clean is a Mount without what must not stay in memory or on disk.
func clean(m sidecar.Mount) sidecar.Mount {
	m.Volume.Secret, m.Warnings = nil, nil
	return m
}
