package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// patience is how long anything may take that takes seconds on an idle machine.
const patience = 3 * time.Minute

// errTooEarly says that a watch was closed before what it was to see.
var errTooEarly = errors.New("the watch ended first")

// watcher is the part of a typed client that opens watches.
type watcher interface {
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// named selects one object.
func named(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
}

// timed watches, acts, and returns the time from the act to the event that done accepts.
func timed(ctx context.Context, w watcher, what metav1.ListOptions, act func() error, done func(watch.Event) bool) (time.Duration, error) {
	seconds := int64(patience.Seconds())
	what.TimeoutSeconds = &seconds
	events, err := w.Watch(ctx, what)
	if err != nil {
		return 0, fmt.Errorf("watch: %w", err)
	}
	defer events.Stop()
	began := time.Now()
	if err := act(); err != nil {
		return 0, err
	}
	for e := range events.ResultChan() {
		if done(e) {
			return time.Since(began), nil
		}
	}
	return 0, errTooEarly
}

// removed is the event of an object's end.
func removed(e watch.Event) bool { return e.Type == watch.Deleted }
