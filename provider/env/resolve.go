package env

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// Objects reads the objects that variables come from. An object that does not exist is an API NotFound error.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
}

// Sources is everything but the pod's own spec that an environment is made of.
type Sources struct {
	// Objects reads Secrets and ConfigMaps.
	Objects Objects
	// Services lists Services; nil means that there are no service variables. Only the pod's namespace and "default" are read.
	// It must have synced, or the variables by which programs find the API server are missing.
	Services corelisters.ServiceLister
	// Allocatable is what the node can allocate: the limits of a container that has none.
	Allocatable corev1.ResourceList
	// Addresses are those of the pod and its node.
	Addresses Addresses
	// OpenFile opens a file of one of the pod's volumes for fileKeyRef; a file that does not exist is fs.ErrNotExist. nil means
	// that fileKeyRef is refused.
	OpenFile func(ctx context.Context, volume, path string) (io.ReadCloser, error)
}

// Resolve returns the environment of c: each name once. Whatever is missing and not optional is a *MissingError, or the API's
// error if the object could not be read; an error never holds a value.
func Resolve(ctx context.Context, pod *corev1.Pod, c *corev1.Container, src Sources) ([]Var, error) {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	services, err := serviceVars(src.Services, pod.Namespace, links)
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	r := &resolver{pod: pod, container: c, src: src, services: index(services), set: map[string]int{}}
	for i := range c.EnvFrom {
		if err := r.addFrom(ctx, &c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		if err := r.addVar(ctx, &c.Env[i]); err != nil {
			return nil, err
		}
	}
	for _, v := range services {
		if _, set := r.set[v.Name]; !set {
			r.put(v.Name, v.Value)
		}
	}
	return r.vars, nil
}

// resolver is the state of one Resolve.
type resolver struct {
	pod       *corev1.Pod
	container *corev1.Container
	src       Sources
	services  map[string]string
	vars      []Var
	// set is the place of each name in vars.
	set map[string]int
}

func (r *resolver) put(name, value string) {
	if i, ok := r.set[name]; ok {
		r.vars[i].Value = value
		return
	}
	r.set[name] = len(r.vars)
	r.vars = append(r.vars, Var{name, value})
}

func (r *resolver) addFrom(ctx context.Context, from *corev1.EnvFromSource) error {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := r.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		if cm == nil || err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(cm.Data)) {
			if err := r.putChecked(from.Prefix+key, cm.Data[key], "ConfigMap", cm.Name, key); err != nil {
				return err
			}
		}
	case from.SecretRef != nil:
		s, err := r.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
		if s == nil || err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(s.Data)) {
			if err := r.putChecked(from.Prefix+key, string(s.Data[key]), "Secret", s.Name, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *resolver) addVar(ctx context.Context, v *corev1.EnvVar) error {
	from := v.ValueFrom
	if v.Value != "" || from == nil {
		r.put(v.Name, Expand(v.Value, r.lookup))
		return nil
	}
	switch {
	case from.FieldRef != nil:
		value, err := Field(r.pod, from.FieldRef, r.src.Addresses)
		if err != nil {
			return fmt.Errorf("environment variable %s: %w", v.Name, err)
		}
		r.put(v.Name, value)
	case from.ResourceFieldRef != nil:
		value, err := Resource(r.pod, r.container, from.ResourceFieldRef, r.src.Allocatable)
		if err != nil {
			return fmt.Errorf("environment variable %s: %w", v.Name, err)
		}
		r.put(v.Name, value)
	case from.ConfigMapKeyRef != nil:
		return r.addConfigMapKey(ctx, v.Name, from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return r.addSecretKey(ctx, v.Name, from.SecretKeyRef)
	case from.FileKeyRef != nil:
		return r.addFileKey(ctx, v.Name, from.FileKeyRef)
	default:
		return fmt.Errorf("environment variable %s: source of value: %w", v.Name, ErrUnsupported)
	}
	return nil
}

func (r *resolver) addConfigMapKey(ctx context.Context, name string, ref *corev1.ConfigMapKeySelector) error {
	cm, err := r.configMap(ctx, ref.Name, ref.Optional)
	if cm == nil || err != nil {
		return err
	}
	value, ok := cm.Data[ref.Key]
	if !ok {
		return r.missingKey("ConfigMap", ref.Name, ref.Key, ref.Optional)
	}
	return r.putChecked(name, value, "ConfigMap", ref.Name, ref.Key)
}

func (r *resolver) addSecretKey(ctx context.Context, name string, ref *corev1.SecretKeySelector) error {
	s, err := r.secret(ctx, ref.Name, ref.Optional)
	if s == nil || err != nil {
		return err
	}
	value, ok := s.Data[ref.Key]
	if !ok {
		return r.missingKey("Secret", ref.Name, ref.Key, ref.Optional)
	}
	return r.putChecked(name, string(value), "Secret", ref.Name, ref.Key)
}

// putChecked refuses what the runtime would refuse later without saying where it came from.
func (r *resolver) putChecked(name, value, kind, object, key string) error {
	if strings.IndexByte(value, 0) >= 0 || !utf8.ValidString(value) {
		return fmt.Errorf("environment variable %s: key %s of %s %s/%s is not text: %w", name, key, kind, r.pod.Namespace, object, ErrValue)
	}
	r.put(name, value)
	return nil
}

// configMap returns nil without an error if the object is missing and optional.
func (r *resolver) configMap(ctx context.Context, name string, optional *bool) (*corev1.ConfigMap, error) {
	cm, err := r.src.Objects.ConfigMap(ctx, r.pod.Namespace, name)
	if err != nil {
		return nil, r.missing(err, "ConfigMap", name, optional)
	}
	return cm, nil
}

// secret is configMap for Secrets.
func (r *resolver) secret(ctx context.Context, name string, optional *bool) (*corev1.Secret, error) {
	s, err := r.src.Objects.Secret(ctx, r.pod.Namespace, name)
	if err != nil {
		return nil, r.missing(err, "Secret", name, optional)
	}
	return s, nil
}

func (r *resolver) missing(err error, kind, name string, optional *bool) error {
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("read %s %s/%s: %w", kind, r.pod.Namespace, name, err)
	}
	if optional != nil && *optional {
		return nil
	}
	return &MissingError{Kind: kind, Namespace: r.pod.Namespace, Name: name, Err: err}
}

func (r *resolver) missingKey(kind, name, key string, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	return &MissingError{Kind: kind, Namespace: r.pod.Namespace, Name: name, Key: key}
}

// lookup resolves a reference inside a value: to what is set so far, or else to a service variable.
func (r *resolver) lookup(name string) string {
	if i, ok := r.set[name]; ok {
		return r.vars[i].Value
	}
	return valueOrReference(name, r.services)
}
