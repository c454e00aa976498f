package main

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/sidecar"
)

// defaultClass marks the StorageClass of claims that name none.
const defaultClass = "storageclass.kubernetes.io/is-default-class"

var _ sidecar.Classes = apiObjects{}

// StorageClass returns the newest default class for "", as the API server chooses it.
func (o apiObjects) StorageClass(ctx context.Context, name string) (*storagev1.StorageClass, error) {
	classes := o.client.StorageV1().StorageClasses()
	if name != "" {
		return classes.Get(ctx, name, metav1.GetOptions{})
	}
	list, err := classes.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var newest *storagev1.StorageClass
	for i := range list.Items {
		c := &list.Items[i]
		if c.Annotations[defaultClass] == "true" && (newest == nil || newest.CreationTimestamp.Before(&c.CreationTimestamp)) {
			newest = c
		}
	}
	if newest == nil {
		return nil, apierrors.NewNotFound(storagev1.Resource("storageclasses"), "default")
	}
	return newest, nil
}
