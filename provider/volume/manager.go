package volume

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/virtual-kubelet/virtual-kubelet/log"

	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/object"
)

// Objects watches the Secrets and ConfigMaps of pods. *object.Store is one.
type Objects interface {
	env.Objects
	// Acquire keeps the pod's objects at hand until Release.
	Acquire(pod *corev1.Pod)
	Release(uid types.UID)
	// OnChange registers a function that is called with the UID of each pod that refers to a changed object.
	OnChange(func(types.UID))
}

// Tokens issues ServiceAccount tokens bound to a pod. *object.Tokens is one.
type Tokens interface {
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (object.Token, error)
	// Forget drops the tokens of a pod that has gone.
	Forget(uid types.UID)
}

// TrustBundles reads ClusterTrustBundles. *object.TrustBundles is one.
type TrustBundles interface {
	TrustAnchors(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error)
}

// Options configures a Manager.
type Options struct {
	// Root is the directory that holds "pods"; required, absolute.
	Root string
	// Objects and Tokens are required.
	Objects Objects
	Tokens  Tokens
	// TrustBundles may be nil; then projections of a ClusterTrustBundle are refused.
	TrustBundles TrustBundles
	// Allocatable is what the node can allocate: the default of limits in the downward API and of memory volumes. nil means
	// that neither has one.
	Allocatable func() corev1.ResourceList
	// RecursiveReadOnly tells whether the runtime of this pod can make submounts read-only too. nil means never.
	RecursiveReadOnly func(*corev1.Pod) bool
	// Deadline bounds each access to a file system of somebody else. Default 10 s; then the access fails with ErrStalled.
	Deadline time.Duration
	// Failed is told when Run could not refresh a pod's volumes, before it retries; it must not block. nil means that it is
	// only logged.
	Failed func(*corev1.Pod, error)
}

const (
	// refreshers is the number of pods whose volumes are refreshed at the same time.
	refreshers = 4
	// refreshTimeout bounds one refresh of one pod.
	refreshTimeout = time.Minute
	minRetry       = time.Second
	maxRetry       = time.Minute
)

// Manager makes, refreshes and removes the volumes of this node's pods. Its methods may be called from any goroutine; those
// for one pod wait for each other.
type Manager struct {
	options Options
	foreign *foreign

	// mu guards the fields below.
	mu   sync.Mutex
	pods map[types.UID]*state
	// queue is nil until Run.
	queue workqueue.TypedRateLimitingInterface[types.UID]
}

// state is what the manager knows of one pod.
type state struct {
	// mu is held during each operation on the pod and guards the fields below.
	mu sync.Mutex
	// pod is nil until the first SetUp.
	pod *corev1.Pod
	// digests tells by volume name what was last written, so that an unchanged volume costs no disk access.
	digests map[string][sha256.Size]byte
	// gone means that TearDown has begun.
	gone bool
}

// New checks the options and returns a Manager. It touches nothing.
func New(o Options) (*Manager, error) {
	switch {
	case !filepath.IsAbs(o.Root):
		return nil, fmt.Errorf("root %q is not absolute: %w", o.Root, ErrOptions)
	case o.Objects == nil:
		return nil, fmt.Errorf("objects: %w", ErrOptions)
	case o.Tokens == nil:
		return nil, fmt.Errorf("tokens: %w", ErrOptions)
	}
	o.Root = filepath.Clean(o.Root)
	if o.Deadline == 0 {
		o.Deadline = 10 * time.Second
	}
	if o.Allocatable == nil {
		o.Allocatable = func() corev1.ResourceList { return nil }
	}
	if o.RecursiveReadOnly == nil {
		o.RecursiveReadOnly = func(*corev1.Pod) bool { return false }
	}
	if o.Failed == nil {
		o.Failed = func(*corev1.Pod, error) {}
	}
	return &Manager{options: o, foreign: newForeign(o.Deadline), pods: map[types.UID]*state{}}, nil
}

// Run keeps the volumes of all pods up to date until ctx ends: after a change of an object, and before a token expires. It
// is to be called once; without it volumes change only by SetUp and Refresh.
func (m *Manager) Run(ctx context.Context) error {
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](minRetry, maxRetry))
	m.options.Objects.OnChange(queue.Add)
	m.mu.Lock()
	m.queue = queue
	for uid := range m.pods {
		queue.Add(uid)
	}
	m.mu.Unlock()
	var workers sync.WaitGroup
	for range refreshers {
		workers.Go(func() { m.refreshAll(ctx, queue) })
	}
	<-ctx.Done()
	queue.ShutDown()
	workers.Wait()
	return nil
}

// refreshAll serves the queue until it is shut down.
func (m *Manager) refreshAll(ctx context.Context, queue workqueue.TypedRateLimitingInterface[types.UID]) {
	for {
		uid, shutdown := queue.Get()
		if shutdown {
			return
		}
		if ctx.Err() != nil || m.refresh(ctx, uid) {
			queue.Forget(uid)
		} else {
			queue.AddRateLimited(uid)
		}
		queue.Done(uid)
	}
}

// refresh reports whether nothing is left to do.
func (m *Manager) refresh(ctx context.Context, uid types.UID) bool {
	s := m.known(uid)
	if s == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	pod, err := m.refreshKnown(ctx, s)
	if err != nil {
		log.G(ctx).WithError(err).WithField("pod", pod.Namespace+"/"+pod.Name).Warn("volumes not refreshed")
		m.options.Failed(pod, err)
	}
	return err == nil
}

// refreshAt has the pod's volumes refreshed at the given time, if Run is there to do it.
func (m *Manager) refreshAt(uid types.UID, due time.Time) {
	m.mu.Lock()
	queue := m.queue
	m.mu.Unlock()
	if queue != nil {
		queue.AddAfter(uid, max(time.Until(due), minRetry))
	}
}

// refreshKnown sets up the volumes of the pod as it was last given.
func (m *Manager) refreshKnown(ctx context.Context, s *state) (*corev1.Pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.pod == nil {
		return s.pod, nil
	}
	_, err := m.setUp(ctx, s)
	return s.pod, err
}

// state returns the pod's state, made if there is none.
func (m *Manager) state(uid types.UID) *state {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.pods[uid]
	if s == nil {
		s = &state{digests: map[string][sha256.Size]byte{}}
		m.pods[uid] = s
	}
	return s
}

func (m *Manager) known(uid types.UID) *state {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pods[uid]
}

// forget drops the state if it is still the pod's.
func (m *Manager) forget(uid types.UID, s *state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid] == s {
		delete(m.pods, uid)
	}
}
