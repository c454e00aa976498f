package provider

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
)

var _ corev1client.PodsGetter = (*PodClient)(nil)

// PodClient is the client for virtual-kubelet's PodController. It passes everything on but the two calls with which PodController
// would go over the engine's head; see the package's documentation.
type PodClient struct {
	client corev1client.PodsGetter
	engine *Engine
	lister corev1listers.PodLister
}

// NewPodClient wraps client; lister knows the node's pods.
func NewPodClient(client corev1client.PodsGetter, engine *Engine, lister corev1listers.PodLister) *PodClient {
	return &PodClient{client: client, engine: engine, lister: lister}
}

// Pods returns the client of a namespace.
func (c *PodClient) Pods(namespace string) corev1client.PodInterface {
	return &namespacedPods{PodInterface: c.client.Pods(namespace), namespace: namespace, wrapper: c}
}

type namespacedPods struct {
	corev1client.PodInterface
	wrapper   *PodClient
	namespace string
}

// Delete asks the engine to end the pod and answers Conflict, which PodController takes for "another time": the engine removes
// the object itself when everything of the pod has ended.
func (p *namespacedPods) Delete(_ context.Context, name string, _ metav1.DeleteOptions) error {
	pod, err := p.wrapper.lister.Pods(p.namespace).Get(name)
	if err != nil {
		return err
	}
	p.wrapper.engine.Update(pod)
	return apierrors.NewConflict(corev1.Resource("pods"), name, errEngineDeletes)
}

// UpdateStatus patches the fields that a node owns and leaves the others, and the pod's metadata, as they are.
func (p *namespacedPods) UpdateStatus(ctx context.Context, pod *corev1.Pod, _ metav1.UpdateOptions) (*corev1.Pod, error) {
	api, err := p.wrapper.lister.Pods(p.namespace).Get(pod.Name)
	if err != nil {
		return nil, err
	}
	patch, err := statusPatch(pod.UID, &api.Status, &pod.Status)
	if err != nil || patch == nil {
		return api, err
	}
	return p.PodInterface.Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
}
