package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/probe"
)

const (
	// startTimeout bounds pulling, creating and starting one container with its postStart hook.
	startTimeout = time.Hour
	// createTimeout bounds each call that creates or starts a container.
	createTimeout = 4 * time.Minute
	// errorShown is how long the error of an attempt is shown before the back-off takes its place.
	errorShown = 2 * time.Second
)

// startOne pulls the image, creates and starts a container, and runs its postStart hook. Images are pulled at the same time;
// containers are started one after the other in the order of the specification, each after the hook of the one before.
func (a *actor) startOne(ctx context.Context, s start, sandbox cri.Sandbox, op operation) {
	name := s.container.Name
	if a.busy()[name] {
		return
	}
	before, done := a.turn, make(chan struct{})
	if s.kind == ephemeralKind {
		before = nil
	} else {
		a.turn = done
	}
	last, _ := a.state.Container(name)
	image := a.memory(name).image
	a.memory(name).image = ""
	work := starting{
		e: a.e, pod: a.running, start: s, events: a.events,
		request: CreateRequest{
			Pod: a.running, Container: s.container, Sandbox: sandbox, Attempt: s.attempt, Image: image,
			PodIPs: a.podIPs(sandbox), TargetID: a.targetID(s), Injected: a.injected(name),
		},
	}
	// From the beginning: the runtime may tell that the container runs before its hook has begun.
	a.memory(name).hooked = s.container.Lifecycle != nil && s.container.Lifecycle.PostStart != nil
	a.begin(ctx, "start/"+name, op, startTimeout, func(ctx context.Context) func() {
		defer close(done)
		err := work.run(ctx, before)
		return func() { a.started(ctx, name, last, err) }
	})
}

// podIPs returns the addresses that the containers of the pod see as its own.
func (a *actor) podIPs(sandbox cri.Sandbox) []string {
	if a.pod.Spec.HostNetwork {
		return a.e.hostIPs()
	}
	return sandbox.IPs
}

func (a *actor) targetID(s start) string {
	if s.kind != ephemeralKind {
		return ""
	}
	target, _ := a.state.Container(ephemeralTarget(a.running, s.container.Name))
	return target.ID
}

// started takes note of how the start of a container ended.
func (a *actor) started(ctx context.Context, name string, last cri.Container, err error) {
	m := a.memory(name)
	m.hooked, a.stale = false, true
	if ctx.Err() == context.Canceled {
		return
	}
	if (err == nil || errors.Is(err, errStarted)) && last.State == cri.Exited {
		m.crash.restarted(time.Now(), last.FinishedAt)
	}
	if err == nil {
		m.waiting, m.pull, m.failure = nil, backoff{}, backoff{}
		a.message = ""
		return
	}
	a.startFailed(ctx, name, err)
}

// startFailed takes note of why a container could not be started, and when the next attempt is due.
func (a *actor) startFailed(ctx context.Context, name string, err error) {
	m := a.memory(name)
	reason, message := reasonOf(err, reasonCreate)
	m.waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	switch {
	case isImageReason(reason):
		m.pull.failed(time.Now(), pullPauses)
	case !errors.Is(err, errStarted):
		m.failure.failed(time.Now(), retryPauses)
	}
	log.G(ctx).WithField("container", name).WithField("reason", reason).WithField("message", message).Warn("container not started, will retry")
}

func isImageReason(reason string) bool {
	for _, e := range []error{cri.ErrImagePull, cri.ErrInvalidImageName, cri.ErrRegistryUnavailable, cri.ErrSignatureValidation,
		cri.ErrImageNeverPull, cri.ErrImageInspect} {
		if reason == e.Error() {
			return true
		}
	}
	return false
}

// errStarted: the container has been created and has ended, because it could not be started or because its postStart hook failed.
// The runtime tells when that was, and the pause before the next attempt is that of a crash.
var errStarted = errors.New("after the creation")

// starting is the start of one container, outside the actor.
type starting struct {
	e       *Engine
	pod     *corev1.Pod
	start   start
	events  *podEvents
	request CreateRequest
}

// run starts the container when before is closed.
func (s starting) run(ctx context.Context, before <-chan struct{}) error {
	if s.request.Image == "" {
		image, err := s.e.images.ensure(ctx, s.pod, s.start.container, s.events)
		if err != nil {
			return err
		}
		s.request.Image = image
	}
	if before != nil {
		select {
		case <-before:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	return s.postStart(ctx, id)
}

func (s starting) create(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	name := s.start.container.Name
	id, err := s.e.runtime.CreateContainer(ctx, s.request)
	if err != nil {
		s.e.images.drop(s.start.container.Image)
		reason := reasonCreate
		if errors.Is(err, ErrContainerConfig) || errors.Is(err, cri.ErrConfig) {
			reason = reasonCreateConfig
		}
		// The reason says already that it is the configuration.
		message := strings.TrimPrefix(cri.Message(err), cri.ErrConfig.Error()+": ")
		s.warn(eventFailed, "Error: %s", message)
		return "", &reasonedError{reason, message}
	}
	s.events.container(s.pod, name, corev1.EventTypeNormal, eventCreated, "Container created")
	if err := s.e.runtime.StartContainer(ctx, id); err != nil {
		s.warn(eventFailed, "Error: %v", cri.Message(err))
		return "", fmt.Errorf("%w: %w", errStarted, &reasonedError{reasonRun, cri.Message(err)})
	}
	s.events.container(s.pod, name, corev1.EventTypeNormal, eventStarted, "Container started")
	return id, nil
}

// postStart runs the hook. If it fails, the container is ended: it was not brought into the state that it needs.
func (s starting) postStart(ctx context.Context, id string) error {
	c := s.start.container
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	hookCtx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	target := probe.Target{ID: id, Container: c}
	if len(s.request.PodIPs) > 0 {
		target.Host = s.request.PodIPs[0]
	}
	err := runHook(hookCtx, s.e.runtime, c.Lifecycle.PostStart, target)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	// The error's text may hold a secret that the hook's server sent, so the event does not repeat it.
	s.warn(eventFailedPostStart, "PostStartHook failed")
	s.events.container(s.pod, c.Name, corev1.EventTypeNormal, eventKilling, "FailedPostStartHook")
	grace := graceOf(s.pod, c, killPostStart, nil)
	if err := s.e.runtime.StopContainer(ctx, id, max(grace, leastGrace)); err != nil {
		return fmt.Errorf("%w: stop container after its postStart hook failed: %w", errStarted, err)
	}
	return fmt.Errorf("%w: %w", errStarted, &reasonedError{reasonPostStart, "PostStartHook failed"})
}

func (s starting) warn(reason, format string, args ...any) {
	s.events.container(s.pod, s.start.container.Name, corev1.EventTypeWarning, reason, format, args...)
}
