package provider

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// mailbox is how the rest of the program reaches an actor. Posting never blocks; what has the same meaning is kept once.
type mailbox struct {
	// ready has one element while there is mail.
	ready chan struct{}

	// mu guards mail.
	mu   sync.Mutex
	mail mail
}

// mail is what an actor has to take note of.
type mail struct {
	// pod is the newest version in the API, nil if there was no news.
	pod *corev1.Pod
	// absent says that the API server has no such pod any more.
	absent bool
	// dirty says that the runtime's state may have changed.
	dirty bool
	// wake says that what waits for its back-off may be tried at once.
	wake bool
	// again says that the pod is to be prepared anew although it has not changed.
	again bool
	// evict ends the pod.
	evict *verdict
	// results are the ends of the actor's own operations, to be applied in order.
	results []func()
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// post changes the mail and wakes the actor.
func (b *mailbox) post(change func(*mail)) {
	b.mu.Lock()
	change(&b.mail)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take returns the mail and empties the box.
func (b *mailbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{}
	return m
}

// alarm is the earliest time at which an actor has to look at its pod without mail.
type alarm struct{ at time.Time }

// set keeps the earlier of two times; zero is no time.
func (a *alarm) set(t time.Time) {
	if !t.IsZero() && (a.at.IsZero() || t.Before(a.at)) {
		a.at = t
	}
}
