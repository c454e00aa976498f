package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/volume/payload"
)

const (
	// privateMode is that of a credential whose reader is known: its user, or through fsGroup its group.
	privateMode = fs.FileMode(0o600)
	// trustInterval is the time between looks at ClusterTrustBundles, which are not watched.
	trustInterval = 5 * time.Minute
)

// projected lays all sources over each other, later ones winning. Every source that fails is named in the error.
func (r *reader) projected(ctx context.Context, v *corev1.ProjectedVolumeSource) (content, error) {
	all := content{files: payload.Files{}}
	var failed []error
	for i := range v.Sources {
		c, err := r.source(ctx, &v.Sources[i], modeOr(v.DefaultMode, defaultMode))
		if err != nil {
			failed = append(failed, err)
			continue
		}
		maps.Copy(all.files, c.files)
		if all.due.IsZero() || !c.due.IsZero() && c.due.Before(all.due) {
			all.due = c.due
		}
	}
	return all, errors.Join(failed...)
}

func (r *reader) source(ctx context.Context, s *corev1.VolumeProjection, mode fs.FileMode) (content, error) {
	switch {
	case s.Secret != nil:
		f, err := r.secret(ctx, s.Secret.Name, s.Secret.Items, mode, isTrue(s.Secret.Optional))
		return content{files: f}, err
	case s.ConfigMap != nil:
		f, err := r.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, mode, isTrue(s.ConfigMap.Optional))
		return content{files: f}, err
	case s.DownwardAPI != nil:
		f, err := r.downward(s.DownwardAPI.Items, mode)
		return content{files: f}, err
	case s.ServiceAccountToken != nil:
		return r.token(ctx, s.ServiceAccountToken, mode)
	case s.ClusterTrustBundle != nil:
		return r.trustBundle(ctx, s.ClusterTrustBundle, mode)
	}
	return content{}, fmt.Errorf("this kind of projected source is not served by this node: %w", ErrUnsupported)
}

func (r *reader) token(ctx context.Context, s *corev1.ServiceAccountTokenProjection, mode fs.FileMode) (content, error) {
	var seconds int64
	if s.ExpirationSeconds != nil {
		seconds = *s.ExpirationSeconds
	}
	token, err := r.manager.options.Tokens.Token(ctx, r.pod, s.Audience, seconds)
	if err != nil {
		return content{}, err
	}
	return content{files: payload.Files{s.Path: r.credential([]byte(token.Value), mode)}, due: token.Refresh}, nil
}

func (r *reader) trustBundle(ctx context.Context, s *corev1.ClusterTrustBundleProjection, mode fs.FileMode) (content, error) {
	if r.manager.options.TrustBundles == nil {
		return content{}, fmt.Errorf("ClusterTrustBundles are not served by this node: %w", ErrUnsupported)
	}
	anchors, err := r.manager.options.TrustBundles.TrustAnchors(ctx, s)
	if err != nil {
		return content{}, err
	}
	return content{
		files: payload.Files{s.Path: r.credential(anchors, mode)},
		due:   time.Now().Add(trustInterval),
	}, nil
}

// credential is private to whom it is for, if that is known, as on a kubelet; else it has the volume's mode.
func (r *reader) credential(data []byte, mode fs.FileMode) payload.File {
	user := fsUser(r.pod, r.volume)
	if user != nil || fsGroup(r.pod) != nil {
		mode = privateMode
	}
	return payload.File{Data: data, Mode: mode, UID: user}
}
