package object

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// minRetry is short: the Node authorizer learns of a pod's objects some milliseconds after the node learns of the pod.
	minRetry = 10 * time.Millisecond
	maxRetry = 30 * time.Second
	// minStream is the shortest life that is asked for a watch; the API server ends it within twice that time.
	minStream = 5 * time.Minute
)

// errFinal ends a watch whose object cannot change any more.
var errFinal = errors.New("object is immutable")

// watched is one object and its watch.
type watched struct {
	ref     reference
	source  source
	changed func(*watched)
	cancel  context.CancelFunc
	// users are the pods that refer to the object; the store's mu guards them.
	users map[types.UID]struct{}
	// known is closed once the first answer is there.
	known chan struct{}

	// mu guards the fields below.
	mu sync.Mutex
	// object is nil if there is none.
	object metav1.Object
	// err is the last failure before the first answer.
	err error
	// missed means that somebody gave up waiting for the first answer.
	missed bool
}

func newWatched(ref reference, src source, changed func(*watched), cancel context.CancelFunc) *watched {
	return &watched{
		ref: ref, source: src, changed: changed, cancel: cancel,
		users: map[types.UID]struct{}{}, known: make(chan struct{}),
	}
}

// run follows the object until ctx ends.
func (w *watched) run(ctx context.Context) {
	defer w.cancel()
	delay := minRetry
	for {
		began := time.Now()
		err := w.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, errFinal) {
			return
		}
		w.fail(err)
		if time.Since(began) > maxRetry {
			delay = minRetry
		}
		timer := time.NewTimer(delay/2 + rand.N(delay))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		delay = min(2*delay, maxRetry)
	}
}

// follow reads the object and follows it until the watch breaks. The first read is a get, which is consistent and needs no
// cache to catch up; the list only finds the version that the watch begins at.
func (w *watched) follow(ctx context.Context) error {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, w.ref.name).String()}
	if !w.isKnown() {
		o, err := w.source.get(ctx, w.ref.namespace, w.ref.name)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		// Any list that is not older than what is known will do.
		options.ResourceVersion = "0"
		if o != nil {
			options.ResourceVersion = o.GetResourceVersion()
		}
		if err := w.set(o); err != nil {
			return err
		}
	}
	items, version, err := w.source.list(ctx, w.ref.namespace, options)
	if err != nil {
		return err
	}
	if err := w.set(w.find(items)); err != nil {
		return err
	}
	for {
		if version, err = w.stream(ctx, options, version); err != nil {
			return err
		}
	}
}

// stream follows one watch from version. It returns the version to go on from after the server has ended it in order.
func (w *watched) stream(ctx context.Context, options metav1.ListOptions, version string) (string, error) {
	seconds := int64((minStream + rand.N(minStream)).Seconds())
	options.ResourceVersion, options.TimeoutSeconds, options.AllowWatchBookmarks = version, &seconds, true
	began := time.Now()
	stream, err := w.source.watch(ctx, w.ref.namespace, options)
	if err != nil {
		return "", err
	}
	defer stream.Stop()
	received := false
	for {
		var event watch.Event
		var ok bool
		select {
		case event, ok = <-stream.ResultChan():
		case <-ctx.Done():
			return "", ctx.Err()
		}
		switch {
		case !ok && !received && time.Since(began) < time.Second:
			// A server that ends watches at once must be met with a growing delay.
			return "", fmt.Errorf("watch %s %s/%s: ended at once", w.ref.kind, w.ref.namespace, w.ref.name)
		case !ok:
			return version, nil
		}
		received = true
		if version, err = w.receive(event); err != nil {
			return "", err
		}
	}
}

// receive takes note of an event and returns the version that it is of.
func (w *watched) receive(event watch.Event) (version string, err error) {
	if event.Type == watch.Error {
		return "", apierrors.FromObject(event.Object)
	}
	o, ok := event.Object.(metav1.Object)
	if !ok {
		return "", fmt.Errorf("watch %s %s/%s: unexpected %T", w.ref.kind, w.ref.namespace, w.ref.name, event.Object)
	}
	switch {
	case o.GetName() != w.ref.name: // a bookmark, or a server that ignores field selectors
	case event.Type == watch.Added, event.Type == watch.Modified:
		err = w.set(o)
	case event.Type == watch.Deleted:
		err = w.set(nil)
	}
	return o.GetResourceVersion(), err
}

func (w *watched) find(items []metav1.Object) metav1.Object {
	for _, o := range items {
		if o.GetName() == w.ref.name {
			return o
		}
	}
	return nil
}

// set records what is known now and reports a change. It returns errFinal if nothing can follow.
func (w *watched) set(o metav1.Object) error {
	if o != nil {
		o.SetManagedFields(nil)
	}
	first := !w.isKnown()
	w.mu.Lock()
	report := w.missed
	if !first {
		report = report || !same(w.object, o)
	}
	w.object, w.err, w.missed = o, nil, false
	if first {
		close(w.known)
	}
	w.mu.Unlock()
	if report {
		w.changed(w)
	}
	if o != nil && immutable(o) {
		return errFinal
	}
	return nil
}

func (w *watched) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// get waits for the first answer, at most for the given time.
func (w *watched) get(ctx context.Context, wait time.Duration) (metav1.Object, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.known:
	case <-timer.C:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.isKnown():
		w.missed = true
		err := w.err
		if err == nil {
			err = context.DeadlineExceeded
		}
		return nil, fmt.Errorf("sync %s %s/%s: %w", w.ref.kind, w.ref.namespace, w.ref.name, err)
	case w.object == nil:
		return nil, notFound(w.ref)
	}
	return w.object, nil
}

func (w *watched) isKnown() bool {
	select {
	case <-w.known:
		return true
	default:
		return false
	}
}

// same tells whether two answers are the same version of the same object.
func same(a, b metav1.Object) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.GetUID() == b.GetUID() && a.GetResourceVersion() == b.GetResourceVersion() && a.GetResourceVersion() != ""
}
