package cri

import (
	"context"
	"errors"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// eventBuffer is how many events wait for a consumer; beyond it the runtime's queue grows.
	eventBuffer = 512
	// retryFirst and retryLast bound the pause before a broken subscription is renewed.
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
	// pollInterval is the kubelet's, for runtimes that send no events.
	pollInterval = time.Second
)

// Events tells what happens to the containers of the node's pods until ctx ends; then the channel is closed. It renews its
// subscription by itself, and every new one, the first included, begins with a Resync. A runtime that cannot send events is
// looked at every second instead.
func (r *Runtime) Events(ctx context.Context) (<-chan Event, error) {
	out := make(chan Event, eventBuffer)
	s := &subscription{runtime: r, out: out}
	go s.run(ctx)
	return out, nil
}

// subscription turns the runtime's events into ours. Its goroutine ends with the context and closes out.
type subscription struct {
	runtime *Runtime
	out     chan<- Event
	// owner is the pod of each sandbox and container that exists; a runtime does not tell it for those that it has deleted.
	owner map[string]types.UID
}

func (s *subscription) run(ctx context.Context) {
	defer close(s.out)
	pause := retryFirst
	for ctx.Err() == nil {
		begun := time.Now()
		err := s.follow(ctx)
		if errors.Is(err, ErrUnsupported) {
			log.G(ctx).Info("container runtime sends no events; polling it")
			s.poll(ctx)
			return
		}
		if ctx.Err() != nil {
			return
		}
		log.G(ctx).WithError(err).Warn("container events broke off")
		if time.Since(begun) > retryLast {
			pause = retryFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryLast)
	}
}

// follow subscribes once and passes events on until the stream breaks.
func (s *subscription) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.runtime.client.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return wrap(err, "subscribe to container events")
	}
	if err := s.learn(ctx); err != nil {
		return err
	}
	if !s.send(ctx, Event{Type: Resync}) {
		return ctx.Err()
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return wrap(err, "receive container event")
		}
		if e, ok := s.translate(resp); ok && !s.send(ctx, e) {
			return ctx.Err()
		}
	}
}

// learn finds the owners of what exists.
func (s *subscription) learn(ctx context.Context) error {
	pods, err := s.runtime.Pods(ctx)
	if err != nil {
		return err
	}
	s.owner = map[string]types.UID{}
	for _, p := range pods {
		for _, sb := range p.Sandboxes {
			s.owner[sb.ID] = p.UID
		}
		for _, c := range p.Containers {
			s.owner[c.ID] = p.UID
		}
	}
	return nil
}

// translate drops events of sandboxes that belong to another node.
func (s *subscription) translate(resp *runtimeapi.ContainerEventResponse) (Event, bool) {
	e := Event{ContainerID: resp.ContainerId, Type: eventType(resp.ContainerEventType)}
	labels := resp.GetPodSandboxStatus().GetLabels()
	if labels == nil {
		e.UID = s.owner[e.ContainerID]
	} else if labels[NodeLabel] == s.runtime.opts.Node {
		e.UID = types.UID(labels[labelPodUID])
		s.owner[e.ContainerID] = e.UID
	}
	if e.Type == ContainerDeleted {
		delete(s.owner, e.ContainerID)
	}
	return e, e.UID != "" && e.Type != ""
}

func eventType(t runtimeapi.ContainerEventType) EventType {
	switch t {
	case runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT:
		return ContainerCreated
	case runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
		return ContainerStarted
	case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT:
		return ContainerStopped
	case runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
		return ContainerDeleted
	}
	return ""
}

func (s *subscription) send(ctx context.Context, e Event) bool {
	select {
	case s.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// poll compares one look at the runtime with the next.
func (s *subscription) poll(ctx context.Context) {
	if !s.send(ctx, Event{Type: Resync}) {
		return
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	old := map[string]seen{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		pods, err := s.runtime.Pods(ctx)
		if err != nil {
			continue
		}
		now := look(pods)
		for _, e := range changes(old, now) {
			if !s.send(ctx, e) {
				return
			}
		}
		old = now
	}
}

// seen is what a look at the runtime shows of a sandbox or container.
type seen struct {
	uid   types.UID
	state ContainerState
}

func look(pods []Pod) map[string]seen {
	out := map[string]seen{}
	for _, p := range pods {
		for _, s := range p.Sandboxes {
			state := Exited
			if s.Ready {
				state = Running
			}
			out[s.ID] = seen{p.UID, state}
		}
		for _, c := range p.Containers {
			out[c.ID] = seen{p.UID, c.State}
		}
	}
	return out
}

// changes are the events that lead from old to now.
func changes(old, now map[string]seen) []Event {
	var events []Event
	for id, n := range now {
		if o, ok := old[id]; ok && o.state == n.state {
			continue
		}
		events = append(events, Event{Type: eventFor(n.state), UID: n.uid, ContainerID: id})
	}
	for id, o := range old {
		if _, ok := now[id]; !ok {
			events = append(events, Event{Type: ContainerDeleted, UID: o.uid, ContainerID: id})
		}
	}
	return events
}

func eventFor(s ContainerState) EventType {
	switch s {
	case Created:
		return ContainerCreated
	case Running:
		return ContainerStarted
	}
	return ContainerStopped
}
