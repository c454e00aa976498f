package mountpod

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

var _ Pods = (*Cluster)(nil)

// Cluster is the Mount Pods of a node at a real API server. It needs get, create, delete, list and watch of pods in their namespace.
type Cluster struct {
	client                  kubernetes.Interface
	namespace, node, driver string
}

// NewCluster returns the Mount Pods of a driver on a node.
func NewCluster(client kubernetes.Interface, namespace, node, driver string) *Cluster {
	return &Cluster{client: client, namespace: namespace, node: node, driver: driver}
}

// Create implements Pods.
func (c *Cluster) Create(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return c.client.CoreV1().Pods(c.namespace).Create(ctx, pod, metav1.CreateOptions{})
}

// Get implements Pods.
func (c *Cluster) Get(ctx context.Context, name string) (*corev1.Pod, error) {
	return c.client.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
}

// Delete implements Pods. A pod of this name with another uid is another pod, and this one is gone.
func (c *Cluster) Delete(ctx context.Context, name string, uid types.UID, grace time.Duration) error {
	seconds := int64(grace.Seconds())
	err := c.client.CoreV1().Pods(c.namespace).Delete(ctx, name, metav1.DeleteOptions{
		GracePeriodSeconds: &seconds, Preconditions: metav1.NewUIDPreconditions(string(uid)),
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// Watch implements Pods with one list at the start and one watch, both of this driver's pods on this node only.
func (c *Cluster) Watch(ctx context.Context, h Handler) error {
	factory := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithNamespace(c.namespace),
		informers.WithTransform(slim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", c.node).String()
			o.LabelSelector = labels.SelectorFromSet(labels.Set{NameLabel: NameValue, DriverLabel: c.driver}).String()
		}))
	defer factory.Shutdown()
	informer := factory.Core().V1().Pods().Informer()
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { h.Changed(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { h.Changed(o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if pod, ok := o.(*corev1.Pod); ok {
				h.Gone(pod)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch mount pods: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.Start(ctx.Done())
	if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		h.Synced()
	}
	<-ctx.Done()
	return nil
}

// slim keeps of a pod what its keeper looks at.
func slim(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	return &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
			Annotations:       map[string]string{UpgradeAnnotation: pod.Annotations[UpgradeAnnotation]},
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Status: pod.Status,
	}, nil
}
