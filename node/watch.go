package node

import (
	"context"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// watch follows the node's own object until ctx ends, so that a deleted node comes back at once and not at the next status
// interval. The field selector is what the Node authorizer demands.
func (n *Node) watch(ctx context.Context) {
	name := n.options.Object.Name
	factory := informers.NewSharedInformerFactoryWithOptions(n.options.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}))
	informer := factory.Core().V1().Nodes().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { n.seen(obj) },
		UpdateFunc: func(old, obj any) {
			// After a gap in the watch, a deleted and re-created node arrives as an update.
			if before, ok := old.(*corev1.Node); ok && before.UID != obj.(*corev1.Node).UID {
				n.seen(obj)
			}
		},
		DeleteFunc: func(any) { n.poke() },
	})
	if err != nil {
		log.G(ctx).WithError(err).WithField("node", name).Error("cannot watch the node's own object")
		return
	}
	factory.StartWithContext(ctx)
	<-ctx.Done()
	factory.Shutdown()
}

// seen passes a newly registered Node object on to keepCSINode; only the newest one counts.
func (n *Node) seen(obj any) {
	object, ok := obj.(*corev1.Node)
	if !ok || object.Name != n.options.Object.Name {
		return
	}
	select {
	case <-n.registered:
	default:
	}
	n.registered <- object
}
