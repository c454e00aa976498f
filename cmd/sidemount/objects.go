package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sidemount/sidemount/sidecar"
)

// The node authorizer learns from its own watches which objects belong to a node's pods, some milliseconds after the node has learnt
// of the pod. An object that is forbidden now is asked for again, after pauses that double, for this long in all.
const (
	authorizerLag        = time.Second
	firstAuthorizerPause = 10 * time.Millisecond
)

// apiObjects reads the objects of volumes one by one, which is all that a node may do.
type apiObjects struct{ client kubernetes.Interface }

var _ sidecar.Objects = apiObjects{}

func (o apiObjects) PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return permitted(ctx, name, o.client.CoreV1().PersistentVolumeClaims(namespace).Get)
}

func (o apiObjects) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	return permitted(ctx, name, o.client.CoreV1().PersistentVolumes().Get)
}

func (o apiObjects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return permitted(ctx, name, o.client.CoreV1().Secrets(namespace).Get)
}

func (o apiObjects) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return permitted(ctx, name, o.client.CoreV1().Pods(namespace).Get)
}

// permitted gets an object and waits for the node authorizer.
func permitted[T any](ctx context.Context, name string, get func(context.Context, string, metav1.GetOptions) (T, error)) (T, error) {
	deadline := time.Now().Add(authorizerLag)
	for pause := firstAuthorizerPause; ; pause *= 2 {
		object, err := get(ctx, name, metav1.GetOptions{})
		if !apierrors.IsForbidden(err) || time.Now().Add(pause).After(deadline) {
			return object, err
		}
		select {
		case <-ctx.Done():
			return object, ctx.Err()
		case <-time.After(pause):
		}
	}
}
