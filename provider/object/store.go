package object

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Options configures a Store.
type Options struct {
	// Client reads Secrets and ConfigMaps; required. Each watched object costs it one open stream.
	Client kubernetes.Interface
	// Wait is how long Secret and ConfigMap wait for the first answer about an object whose watch has just begun. Default 2 s.
	// After it they fail with the API's last error, and the pod is reported through OnChange once the object is known.
	Wait time.Duration
}

// Store watches the objects of the pods that have been acquired. Its methods may be called at any time and from any
// goroutine; what they return is shared and must not be modified.
type Store struct {
	sources map[kind]source
	wait    time.Duration

	// mu guards the fields below and every watch's users.
	mu       sync.Mutex
	watches  map[reference]*watched
	pods     map[types.UID]map[reference]struct{}
	onChange []func(types.UID)
	stopped  bool
	running  sync.WaitGroup
}

// New returns a Store that watches nothing yet.
func New(o Options) (*Store, error) {
	if o.Client == nil {
		return nil, fmt.Errorf("client: %w", ErrOptions)
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	return &Store{
		sources: map[kind]source{secretKind: secrets(o.Client), configMapKind: configMaps(o.Client)},
		wait:    o.Wait,
		watches: map[reference]*watched{},
		pods:    map[types.UID]map[reference]struct{}{},
	}, nil
}

// Run blocks until ctx ends, then ends every watch and waits for them. The store cannot be used afterwards.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.stopped = true
	for _, w := range s.watches {
		w.cancel()
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// OnChange registers a function that is called with the UID of each acquired pod that refers to an object which has
// appeared, changed or vanished. It is called from the watches' goroutines, must not block, and may call the store.
func (s *Store) OnChange(f func(types.UID)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onChange = append(s.onChange, f)
}

// Acquire begins to watch whatever the pod refers to. Called again for the same UID it follows a changed spec.
func (s *Store) Acquire(pod *corev1.Pod) {
	refs := references(pod)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	old := s.pods[pod.UID]
	s.pods[pod.UID] = refs
	for ref := range refs {
		if _, had := old[ref]; !had {
			s.use(ref, pod.UID)
		}
	}
	for ref := range old {
		if _, has := refs[ref]; !has {
			s.disuse(ref, pod.UID)
		}
	}
}

// Release ends the watches that only this pod needed. It is a no-op for an unknown UID.
func (s *Store) Release(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref := range s.pods[uid] {
		s.disuse(ref, uid)
	}
	delete(s.pods, uid)
}

// use needs mu.
func (s *Store) use(ref reference, uid types.UID) {
	w := s.watches[ref]
	if w == nil {
		ctx, cancel := context.WithCancel(context.Background())
		w = newWatched(ref, s.sources[ref.kind], s.changed, cancel)
		s.watches[ref] = w
		s.running.Go(func() { w.run(ctx) })
	}
	w.users[uid] = struct{}{}
}

// disuse needs mu.
func (s *Store) disuse(ref reference, uid types.UID) {
	w := s.watches[ref]
	delete(w.users, uid)
	if len(w.users) == 0 {
		w.cancel()
		delete(s.watches, ref)
	}
}

// changed tells the subscribers about the pods that use w.
func (s *Store) changed(w *watched) {
	s.mu.Lock()
	uids := make([]types.UID, 0, len(w.users))
	for uid := range w.users {
		uids = append(uids, uid)
	}
	subscribers := s.onChange
	s.mu.Unlock()
	for _, f := range subscribers {
		for _, uid := range uids {
			f(uid)
		}
	}
}

// Secret returns the Secret, or an API NotFound error. A Secret that no acquired pod refers to is read from the API.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	o, err := s.get(ctx, reference{secretKind, namespace, name})
	if err != nil {
		return nil, err
	}
	return o.(*corev1.Secret), nil
}

// ConfigMap returns the ConfigMap, or an API NotFound error. A ConfigMap that no acquired pod refers to is read from the API.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	o, err := s.get(ctx, reference{configMapKind, namespace, name})
	if err != nil {
		return nil, err
	}
	return o.(*corev1.ConfigMap), nil
}

func (s *Store) get(ctx context.Context, ref reference) (metav1.Object, error) {
	s.mu.Lock()
	w, stopped := s.watches[ref], s.stopped
	s.mu.Unlock()
	if stopped {
		return nil, ErrStopped
	}
	if w != nil {
		return w.get(ctx, s.wait)
	}
	o, err := s.sources[ref.kind].get(ctx, ref.namespace, ref.name)
	if apierrors.IsNotFound(err) {
		return nil, notFound(ref)
	}
	return o, err
}
