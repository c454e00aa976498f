package object

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// source reads objects of one kind.
type source struct {
	get   func(ctx context.Context, namespace, name string) (metav1.Object, error)
	list  func(ctx context.Context, namespace string, o metav1.ListOptions) (items []metav1.Object, version string, err error)
	watch func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error)
}

func secrets(c kubernetes.Interface) source {
	return source{
		get: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return object(c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{}))
		},
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) ([]metav1.Object, string, error) {
			l, err := c.CoreV1().Secrets(namespace).List(ctx, o)
			if err != nil {
				return nil, "", err
			}
			items := make([]metav1.Object, len(l.Items))
			for i := range l.Items {
				items[i] = &l.Items[i]
			}
			return items, l.ResourceVersion, nil
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return c.CoreV1().Secrets(namespace).Watch(ctx, o)
		},
	}
}

func configMaps(c kubernetes.Interface) source {
	return source{
		get: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return object(c.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{}))
		},
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) ([]metav1.Object, string, error) {
			l, err := c.CoreV1().ConfigMaps(namespace).List(ctx, o)
			if err != nil {
				return nil, "", err
			}
			items := make([]metav1.Object, len(l.Items))
			for i := range l.Items {
				items[i] = &l.Items[i]
			}
			return items, l.ResourceVersion, nil
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return c.CoreV1().ConfigMaps(namespace).Watch(ctx, o)
		},
	}
}

// object keeps an object that could not be read from becoming a non-nil interface.
func object[T metav1.Object](o T, err error) (metav1.Object, error) {
	if err != nil {
		return nil, err
	}
	return o, nil
}

// notFound is the error of a kubelet: secret "x" not found.
func notFound(ref reference) error {
	return apierrors.NewNotFound(corev1.Resource(string(ref.kind)), ref.name)
}

func immutable(o metav1.Object) bool {
	var flag *bool
	switch o := o.(type) {
	case *corev1.Secret:
		flag = o.Immutable
	case *corev1.ConfigMap:
		flag = o.Immutable
	}
	return flag != nil && *flag
}
