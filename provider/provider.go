package provider

import (
	"context"

	"github.com/virtual-kubelet/virtual-kubelet/errdefs"
	"github.com/virtual-kubelet/virtual-kubelet/node"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1listers "k8s.io/client-go/listers/core/v1"
)

var (
	_ node.PodLifecycleHandler = (*Provider)(nil)
	_ node.PodNotifier         = (*Provider)(nil)
)

// Provider is what virtual-kubelet sees of the engine. Its methods post to the engine and return: they never block, and the
// errors that virtual-kubelet would answer by failing a pod or by forgetting it are not among what they return.
type Provider struct {
	engine *Engine
	lister corev1listers.PodLister
}

// NewProvider returns the engine as virtual-kubelet's provider; lister knows the node's pods.
func NewProvider(engine *Engine, lister corev1listers.PodLister) *Provider {
	return &Provider{engine: engine, lister: lister}
}

// CreatePod makes the engine run the pod.
func (p *Provider) CreatePod(_ context.Context, pod *corev1.Pod) error {
	p.engine.Update(pod)
	return nil
}

// UpdatePod tells the engine of a change of the pod.
func (p *Provider) UpdatePod(_ context.Context, pod *corev1.Pod) error {
	p.engine.Update(pod)
	return nil
}

// DeletePod makes the engine end the pod, at the grace period that the pod says.
func (p *Provider) DeletePod(_ context.Context, pod *corev1.Pod) error {
	live, err := p.lister.Pods(pod.Namespace).Get(pod.Name)
	switch {
	case apierrors.IsNotFound(err), err == nil && live.UID != pod.UID:
		p.engine.Gone(pod.UID)
	case err == nil:
		p.engine.Update(live)
	}
	return nil
}

// GetPod returns the pod that has the name now; virtual-kubelet does not tell pods of one name apart, so an older one of the name
// is answered only when there is no newer.
func (p *Provider) GetPod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	view, err := p.current(namespace, name)
	if err != nil {
		return nil, err
	}
	return view.Snapshot(), nil
}

// GetPodStatus returns the newest status of the pod that has the name now.
func (p *Provider) GetPodStatus(_ context.Context, namespace, name string) (*corev1.PodStatus, error) {
	view, err := p.current(namespace, name)
	if err != nil {
		return nil, err
	}
	return view.Status.DeepCopy(), nil
}

// GetPods returns the pods of the engine.
func (p *Provider) GetPods(context.Context) ([]*corev1.Pod, error) {
	views := p.engine.Views()
	pods := make([]*corev1.Pod, 0, len(views))
	for _, v := range views {
		pods = append(pods, v.Snapshot())
	}
	return pods, nil
}

// NotifyPods does not use the callback: the engine writes the status itself. That the method exists keeps virtual-kubelet from
// polling, and from inventing a status for pods that it does not find.
func (p *Provider) NotifyPods(context.Context, func(*corev1.Pod)) {}

func (p *Provider) current(namespace, name string) (*PodView, error) {
	live, err := p.lister.Pods(namespace).Get(name)
	var view *PodView
	if err == nil {
		view, err = p.engine.View(live.UID)
	} else {
		view, err = p.engine.ViewByName(namespace, name)
	}
	if err != nil {
		return nil, errdefs.NotFoundf("pod %s/%s is not known to the provider", namespace, name)
	}
	return view, nil
}

// Snapshot returns a copy of the pod with its newest status.
func (v *PodView) Snapshot() *corev1.Pod {
	pod := v.Pod.DeepCopy()
	pod.Status = *mergeStatus(&v.Pod.Status, v.Status)
	return pod
}
