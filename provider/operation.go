package provider

import (
	"context"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// operation is work for a pod that runs outside its actor.
type operation struct {
	// container is the container it works on, "" for the pod.
	container string
	// ends says that the operation ends something; such ones are not cancelled when the pod is to be stopped.
	ends   bool
	cancel context.CancelFunc
}

// begin runs work unless an operation with that key is under way. The function that work returns is applied by the actor; it may
// be nil. timeout bounds the work; its context also ends with the actor.
func (a *actor) begin(ctx context.Context, key string, op operation, timeout time.Duration, work func(ctx context.Context) func()) bool {
	if a.ops[key] != nil {
		return false
	}
	ctx, op.cancel = context.WithTimeout(ctx, timeout)
	a.ops[key] = &op
	a.wg.Go(func() {
		began := time.Now()
		apply := work(ctx)
		log.G(ctx).WithField("operation", key).WithField("took", time.Since(began).Round(time.Millisecond)).Debug("operation ended")
		a.box.post(func(m *mail) {
			m.results = append(m.results, func() {
				if a.ops[key] == &op {
					delete(a.ops, key)
				}
				// What is applied asks the context whether the operation was cancelled, so the context is released after it.
				if apply != nil {
					apply()
				}
				op.cancel()
			})
		})
	})
	return true
}

// busy returns the names of the containers that operations work on.
func (a *actor) busy() map[string]bool {
	names := make(map[string]bool, len(a.ops))
	for _, op := range a.ops {
		if op.container != "" {
			names[op.container] = true
		}
	}
	return names
}

// interrupt cancels the operations that do not end something and reports whether any is still under way.
func (a *actor) interrupt() bool {
	pending := false
	for _, op := range a.ops {
		if !op.ends {
			op.cancel()
			pending = true
		}
	}
	return pending
}
