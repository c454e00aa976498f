package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// cluster is an API server that has been given its objects as YAML. fail, if set, is asked first.
type cluster struct {
	pod     *corev1.Pod
	claims  map[string]*corev1.PersistentVolumeClaim
	volumes map[string]*corev1.PersistentVolume
	secrets map[string]*corev1.Secret
	fail    func(resource, name string) error
}

func load(t testing.TB, text []byte) *cluster {
	t.Helper()
	c := &cluster{
		claims:  map[string]*corev1.PersistentVolumeClaim{},
		volumes: map[string]*corev1.PersistentVolume{},
		secrets: map[string]*corev1.Secret{},
	}
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		c.add(t, doc)
	}
}

func (c *cluster) add(t testing.TB, doc []byte) {
	t.Helper()
	var kind struct {
		Kind string `json:"kind"`
	}
	decode(t, doc, &kind, false)
	switch kind.Kind {
	case "Pod":
		c.pod = new(corev1.Pod)
		decode(t, doc, c.pod, true)
	case "PersistentVolumeClaim":
		o := new(corev1.PersistentVolumeClaim)
		decode(t, doc, o, true)
		c.claims[o.Namespace+"/"+o.Name] = o
	case "PersistentVolume":
		o := new(corev1.PersistentVolume)
		decode(t, doc, o, true)
		c.volumes[o.Name] = o
	case "Secret":
		o := new(corev1.Secret)
		decode(t, doc, o, true)
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		for k, v := range o.StringData {
			o.Data[k] = []byte(v)
		}
		c.secrets[o.Namespace+"/"+o.Name] = o
	default:
		t.Fatalf("object of kind %q", kind.Kind)
	}
}

func decode(t testing.TB, doc []byte, into any, strict bool) {
	t.Helper()
	parse := func(b []byte, o any) error { return yaml.Unmarshal(b, o) }
	if strict {
		parse = func(b []byte, o any) error { return yaml.UnmarshalStrict(b, o) }
	}
	if err := parse(doc, into); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
}

func (c *cluster) PersistentVolumeClaim(_ context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return get(c, c.claims, "persistentvolumeclaims", namespace+"/"+name)
}

func (c *cluster) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	return get(c, c.volumes, "persistentvolumes", name)
}

func (c *cluster) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	return get(c, c.secrets, "secrets", namespace+"/"+name)
}

func get[T any](c *cluster, objects map[string]*T, resource, key string) (*T, error) {
	if c.fail != nil {
		if err := c.fail(resource, key); err != nil {
			return nil, err
		}
	}
	if o, ok := objects[key]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: resource}, key)
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
