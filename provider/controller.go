package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	"github.com/virtual-kubelet/virtual-kubelet/node"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// podWorkers is how many of virtual-kubelet's workers call the provider at a time. None of the calls blocks.
const podWorkers = 10

// ControllerOptions are what a Controller works with.
type ControllerOptions struct {
	// Client reads pods. Required.
	Client kubernetes.Interface
	// Engine runs them; its client, recorder and node name are used as well. Required.
	Engine *Engine
	// Workers is how many calls of the provider virtual-kubelet makes at a time. Default 10.
	Workers int
}

// Controller watches the node's pods and drives the engine with them, by itself and through virtual-kubelet's PodController.
type Controller struct {
	engine   *Engine
	provider *Provider
	factory  informers.SharedInformerFactory
	pods     corev1informers.PodInformer
	inner    *node.PodController
	workers  int
}

// NewController assembles the parts; nothing is watched before Run.
func NewController(o ControllerOptions) (*Controller, error) {
	if o.Client == nil || o.Engine == nil {
		return nil, errors.New("pod controller needs a client and an engine")
	}
	factory := informers.NewSharedInformerFactoryWithOptions(o.Client, 0,
		informers.WithTransform(withoutManagedFields),
		informers.WithTweakListOptions(func(l *metav1.ListOptions) {
			l.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", o.Engine.node).String()
		}))
	// PodController wants informers for objects that it needs only to resolve environment variables, which it is told not to do.
	// These are never started, so nothing is listed.
	unused := informers.NewSharedInformerFactory(o.Client, 0)
	pods := factory.Core().V1().Pods()
	c := &Controller{engine: o.Engine, provider: NewProvider(o.Engine, pods.Lister()), factory: factory, pods: pods,
		workers: or(o.Workers, podWorkers)}
	inner, err := node.NewPodController(node.PodControllerConfig{
		PodClient:                                NewPodClient(o.Engine.client, o.Engine, pods.Lister()),
		PodInformer:                              pods,
		EventRecorder:                            quietRecorder{o.Engine.recorder},
		Provider:                                 c.provider,
		ConfigMapInformer:                        unused.Core().V1().ConfigMaps(),
		SecretInformer:                           unused.Core().V1().Secrets(),
		ServiceInformer:                          unused.Core().V1().Services(),
		SkipDownwardAPIResolution:                true,
		SyncPodsFromKubernetesRateLimiter:        limiter(),
		DeletePodsFromKubernetesRateLimiter:      limiter(),
		SyncPodStatusFromProviderRateLimiter:     limiter(),
		SyncPodsFromKubernetesShouldRetryFunc:    retryForEver,
		DeletePodsFromKubernetesShouldRetryFunc:  retryForEver,
		SyncPodStatusFromProviderShouldRetryFunc: retryForEver,
	})
	if err != nil {
		return nil, fmt.Errorf("assemble pod controller: %w", err)
	}
	c.inner = inner
	return c, nil
}

// Provider is what virtual-kubelet calls.
func (c *Controller) Provider() *Provider { return c.provider }

// Synced reports whether the node's pods have been listed.
func (c *Controller) Synced() bool { return c.pods.Informer().HasSynced() }

// Run watches and runs pods until ctx ends. The pods go on then.
func (c *Controller) Run(ctx context.Context) error {
	registration, err := c.pods.Informer().AddEventHandler(c.handler())
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	c.factory.StartWithContext(ctx)
	defer c.factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return errors.Join(errors.New("pods were not listed"), ctx.Err())
	}
	group.Go(func() error { return c.engine.Run(ctx) })
	group.Go(func() error { return c.inner.Run(log.WithLogger(ctx, quietLogger{log.G(ctx)}), c.workers) })
	return group.Wait()
}

// handler tells the engine of every change. A deletion that was missed comes as a tombstone with the last known version.
func (c *Controller) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.update(o) },
		UpdateFunc: func(_, o any) { c.update(o) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if pod, ok := o.(*corev1.Pod); ok {
				c.engine.Gone(pod.UID)
			}
		},
	}
}

func (c *Controller) update(o any) {
	if pod, ok := o.(*corev1.Pod); ok {
		c.engine.Update(pod)
	}
}

// withoutManagedFields drops what nobody reads and what is often the larger part of a pod.
func withoutManagedFields(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// limiter lets through what comes and delays only what fails.
func limiter() workqueue.TypedRateLimiter[any] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[any](5*time.Millisecond, 30*time.Second)
}

// retryForEver makes a queue try again whatever the error and the number of attempts.
func retryForEver(_ context.Context, _ string, _ int, _ time.Time, _ error) (*time.Duration, error) {
	return nil, nil
}
