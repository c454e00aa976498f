package providertest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

var (
	_ provider.Runtime = (*Runtime)(nil)
	_ provider.Images  = (*Runtime)(nil)
)

// Behaviour is how the containers of an image behave. The zero value runs until it is stopped and then exits with 0 at once.
type Behaviour struct {
	// Exits makes the n-th container of a name exit by itself right after its start, with Codes[n]; the last code repeats.
	Codes []int32
	// IgnoresTerm makes the container end only by SIGKILL, with exit code 137.
	IgnoresTerm bool
	// Stuck makes the container survive SIGKILL, as one does that waits for a file system; only Exit ends it.
	Stuck bool
	// PullError, CreateError and StartError fail those calls.
	PullError, CreateError, StartError error
	// Absent images have to be pulled.
	Absent bool
	// Message is the termination message.
	Message string
	// Exec answers commands; nil answers every command with exit code 0.
	Exec func(command []string) (output string, exitCode int32)
}

// Runtime is a container runtime in memory.
type Runtime struct {
	// mu guards all fields.
	mu         sync.Mutex
	next       int
	pods       map[types.UID]*cri.Pod
	behaviours map[string]Behaviour
	pulled     map[string]bool
	streams    map[chan cri.Event]bool
	mute       bool
	calls      []string
	failures   map[string]error
	holds      map[string]chan struct{}
	// exits has a channel per running container, closed when it ends.
	exits map[string]chan struct{}
}

// NewRuntime returns a runtime without pods.
func NewRuntime() *Runtime {
	return &Runtime{
		pods: make(map[types.UID]*cri.Pod), behaviours: make(map[string]Behaviour), pulled: make(map[string]bool),
		streams: make(map[chan cri.Event]bool), failures: make(map[string]error), holds: make(map[string]chan struct{}),
		exits: make(map[string]chan struct{}),
	}
}

// Behave sets how the containers of an image behave from now on.
func (r *Runtime) Behave(image string, b Behaviour) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behaviours[image] = b
}

// Fail makes every call of that name fail with err until it is called with nil. Names are those in Calls.
func (r *Runtime) Fail(call string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures[call] = err
}

// Hold makes every call of that name wait until the returned function is called or its context ends.
func (r *Runtime) Hold(call string) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan struct{})
	r.holds[call] = c
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.holds[call] == c {
			delete(r.holds, call)
		}
		close(c)
	})
}

// Calls returns what was asked of the runtime, in order: "run", "create app", "start app", "stop app 30s", "stop sandbox", …
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// call records a call and returns the error that it is to fail with.
func (r *Runtime) call(ctx context.Context, name, detail string) error {
	r.mu.Lock()
	r.calls = append(r.calls, name+detail)
	hold, err := r.holds[name], r.failures[name]
	r.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

// Pods implements provider.States.
func (r *Runtime) Pods(ctx context.Context) ([]cri.Pod, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.failures["pods"]; err != nil {
		return nil, err
	}
	all := make([]cri.Pod, 0, len(r.pods))
	for _, p := range r.pods {
		all = append(all, copyPod(p))
	}
	return all, ctx.Err()
}

// Pod implements provider.States.
func (r *Runtime) Pod(ctx context.Context, uid types.UID) (cri.Pod, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.failures["pod"]; err != nil {
		return cri.Pod{}, err
	}
	if p := r.pods[uid]; p != nil {
		return copyPod(p), ctx.Err()
	}
	return cri.Pod{UID: uid}, ctx.Err()
}

func copyPod(p *cri.Pod) cri.Pod {
	c := *p
	c.Sandboxes, c.Containers = slices.Clone(p.Sandboxes), slices.Clone(p.Containers)
	return c
}

// Events implements provider.States.
func (r *Runtime) Events(ctx context.Context) (<-chan cri.Event, error) {
	stream := make(chan cri.Event, 1024)
	stream <- cri.Event{Type: cri.Resync}
	r.mu.Lock()
	r.streams[stream] = true
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.streams, stream)
		close(stream)
	})
	return stream, nil
}

// Mute loses all events from now on, as a broken stream would.
func (r *Runtime) Mute() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = true
}

// emit sends an event to all streams; a full one loses it, as a broken stream would. Callers hold mu.
func (r *Runtime) emit(t cri.EventType, uid types.UID, id string) {
	for s := range r.streams {
		if r.mute {
			continue
		}
		select {
		case s <- cri.Event{Type: t, UID: uid, ContainerID: id}:
		default:
		}
	}
}

// ContainerHash implements provider.States.
func (r *Runtime) ContainerHash(c *corev1.Container) string { return c.Name + "@" + c.Image }

// ImagePresent implements provider.Images.
func (r *Runtime) ImagePresent(_ context.Context, ref string) (string, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.behaviours[ref].Absent && !r.pulled[ref] {
		return "", false, nil
	}
	return "sha256:" + ref, true, nil
}

// PullImage implements provider.Images.
func (r *Runtime) PullImage(ctx context.Context, _ *corev1.Pod, ref string) (provider.PulledImage, error) {
	if err := r.call(ctx, "pull", " "+ref); err != nil {
		return provider.PulledImage{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.behaviours[ref].PullError; err != nil {
		return provider.PulledImage{}, fmt.Errorf("%w: %w", cri.ErrImagePull, err)
	}
	r.pulled[ref] = true
	return provider.PulledImage{ID: "sha256:" + ref, Size: 42}, nil
}

// id returns a new identifier. Callers hold mu.
func (r *Runtime) id() string {
	r.next++
	return fmt.Sprintf("%016x", r.next)
}

// Has returns what the runtime has of a pod at the moment.
func (r *Runtime) Has(uid types.UID) cri.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil {
		return copyPod(p)
	}
	return cri.Pod{}
}
