package provider

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// lookUp asks the API server for a pod of this node. The error is NotFound if it has none of that name on the node. It lists instead of
// getting: the node authorizer answers a get of a pod that has been deleted with Forbidden, as of one that was never the node's.
func lookUp(ctx context.Context, client corev1client.PodsGetter, node, namespace, name string) (*corev1.Pod, error) {
	list, err := client.Pods(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.SelectorFromSet(fields.Set{"spec.nodeName": node, "metadata.name": name}).String(),
	})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if p := &list.Items[i]; p.Name == name && p.Spec.NodeName == node {
			return p, nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}
