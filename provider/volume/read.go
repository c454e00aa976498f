package volume

import (
	"context"
	"fmt"
	"io/fs"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/volume/payload"
)

// defaultMode is that of core/v1 for a volume that gives none; the API server fills it in.
const defaultMode = fs.FileMode(0o644)

// reader reads what one volume of files shows.
type reader struct {
	manager *Manager
	pod     *corev1.Pod
	volume  string
}

func (r *reader) configMapVolume(ctx context.Context, v *corev1.ConfigMapVolumeSource) (content, error) {
	f, err := r.configMap(ctx, v.Name, v.Items, modeOr(v.DefaultMode, defaultMode), isTrue(v.Optional))
	return content{files: f}, err
}

func (r *reader) secretVolume(ctx context.Context, v *corev1.SecretVolumeSource) (content, error) {
	f, err := r.secret(ctx, v.SecretName, v.Items, modeOr(v.DefaultMode, defaultMode), isTrue(v.Optional))
	return content{files: f}, err
}

func (r *reader) downwardVolume(v *corev1.DownwardAPIVolumeSource) (content, error) {
	f, err := r.downward(v.Items, modeOr(v.DefaultMode, defaultMode))
	return content{files: f}, err
}

func (r *reader) configMap(ctx context.Context, name string, items []corev1.KeyToPath, mode fs.FileMode, optional bool) (payload.Files, error) {
	cm, err := r.manager.options.Objects.ConfigMap(ctx, r.pod.Namespace, name)
	if apierrors.IsNotFound(err) && optional {
		return nil, nil
	}
	if err != nil {
		return nil, missing("ConfigMap", r.pod.Namespace, name, err)
	}
	data := maps.Clone(cm.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for key, text := range cm.Data {
		data[key] = []byte(text)
	}
	return pick(data, items, mode, optional, "configmap references non-existent config key: %s")
}

func (r *reader) secret(ctx context.Context, name string, items []corev1.KeyToPath, mode fs.FileMode, optional bool) (payload.Files, error) {
	s, err := r.manager.options.Objects.Secret(ctx, r.pod.Namespace, name)
	if apierrors.IsNotFound(err) && optional {
		return nil, nil
	}
	if err != nil {
		return nil, missing("Secret", r.pod.Namespace, name, err)
	}
	return pick(s.Data, items, mode, optional, "references non-existent secret key: %s")
}

// missing makes an object that does not exist recognisable, in the words of the API.
func missing(kind, namespace, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return &env.MissingError{Kind: kind, Namespace: namespace, Name: name, Err: err}
	}
	return fmt.Errorf("read %s %s/%s: %w", kind, namespace, name, err)
}

// pick returns the items of data, or all of it if there are none.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode fs.FileMode, optional bool, absent string) (payload.Files, error) {
	f := payload.Files{}
	if len(items) == 0 {
		for key, value := range data {
			f[key] = payload.File{Data: value, Mode: mode}
		}
		return f, nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		switch {
		case ok:
			f[item.Path] = payload.File{Data: value, Mode: modeOr(item.Mode, mode)}
		case !optional:
			return nil, fmt.Errorf(absent, item.Key)
		}
	}
	return f, nil
}

func (r *reader) downward(items []corev1.DownwardAPIVolumeFile, mode fs.FileMode) (payload.Files, error) {
	f := payload.Files{}
	for _, item := range items {
		value, err := r.downwardItem(item)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", item.Path, err)
		}
		f[item.Path] = payload.File{Data: []byte(value), Mode: modeOr(item.Mode, mode)}
	}
	return f, nil
}

func (r *reader) downwardItem(item corev1.DownwardAPIVolumeFile) (string, error) {
	switch {
	case item.FieldRef != nil:
		return env.MetadataField(r.pod, item.FieldRef)
	case item.ResourceFieldRef != nil:
		return env.Resource(r.pod, nil, item.ResourceFieldRef, r.manager.options.Allocatable())
	}
	return "", fmt.Errorf("neither fieldRef nor resourceFieldRef: %w", ErrUnsupported)
}

func modeOr(mode *int32, otherwise fs.FileMode) fs.FileMode {
	if mode == nil {
		return otherwise
	}
	return fs.FileMode(*mode).Perm()
}

func isTrue(b *bool) bool { return b != nil && *b }
