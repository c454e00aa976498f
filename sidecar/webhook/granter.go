package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/grant"
)

// Claims of a token that is bound to a pod (k8s.io/apiserver/pkg/authentication/serviceaccount).
const (
	podNameExtra = "authentication.kubernetes.io/pod-name"
	podUIDExtra  = "authentication.kubernetes.io/pod-uid"
	userPrefix   = "system:serviceaccount:"
)

// VolumeResolver resolves one volume with its Secret. *sidecar.Resolver is one.
type VolumeResolver interface {
	ResolveVolume(ctx context.Context, pod *corev1.Pod, v corev1.Volume) (sidecar.Mount, error)
}

// Recorder takes events. A record.EventRecorder is one.
type Recorder interface {
	Event(object runtime.Object, kind, reason, message string)
}

// GranterOptions configure a Granter; all are required.
type GranterOptions struct {
	// Client reviews tokens and reads pods.
	Client kubernetes.Interface
	// Resolver finds out what volumes are.
	Resolver VolumeResolver
	// Audience is whom a token must be for.
	Audience string
	// Image is the broker's; a pod is trusted with its volumes if its broker has an image of the same repository.
	Image string
	// Recorder tells the user of a pod why a volume is missing.
	Recorder Recorder
}

// Granter gives the brokers of pods their volumes.
type Granter struct{ o GranterOptions }

var _ grant.Granter = (*Granter)(nil)

// NewGranter checks the options.
func NewGranter(o GranterOptions) (*Granter, error) {
	if o.Client == nil || o.Resolver == nil || o.Audience == "" || o.Image == "" || o.Recorder == nil {
		return nil, errors.New("the granter needs a client, a resolver, an audience, an image and a recorder")
	}
	return &Granter{o}, nil
}

// ErrRefused: the token or its pod is not what it must be.
var ErrRefused = errors.New("not granted")

// Grant returns the volumes of the pod that a token is bound to.
func (g *Granter) Grant(ctx context.Context, r grant.Request) ([]grant.Result, error) {
	pod, err := g.pod(ctx, r.Token)
	if err != nil {
		return nil, err
	}
	if err := g.trusted(pod); err != nil {
		log.G(ctx).WithError(err).WithField("namespace", pod.Namespace).WithField("pod", pod.Name).Warn("volumes refused")
		return nil, err
	}
	results := make([]grant.Result, len(r.Volumes))
	for i, name := range r.Volumes {
		v, err := g.volume(ctx, pod, name)
		if err != nil {
			results[i].Error = grant.Fail(err)
			g.tell(pod, name, err)
			continue
		}
		results[i].Volume = v
	}
	log.G(ctx).WithField("namespace", pod.Namespace).WithField("pod", pod.Name).WithField("volumes", strings.Join(r.Volumes, ",")).Info("volumes granted")
	return results, nil
}

// pod finds the pod that a token was made for, as the API server has it now.
func (g *Granter) pod(ctx context.Context, token string) (*corev1.Pod, error) {
	review, err := g.o.Client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{g.o.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("review the token: %w: %w", mount.ErrUnavailable, err)
	}
	s := review.Status
	if !s.Authenticated || !slices.Contains(s.Audiences, g.o.Audience) {
		return nil, fmt.Errorf("the token is not valid for %s: %w", g.o.Audience, ErrRefused)
	}
	account, ok := strings.CutPrefix(s.User.Username, userPrefix)
	namespace, _, _ := strings.Cut(account, ":")
	name, uid := only(s.User.Extra[podNameExtra]), only(s.User.Extra[podUIDExtra])
	if !ok || name == "" || uid == "" {
		return nil, fmt.Errorf("the token is not bound to a pod: %w", ErrRefused)
	}
	pod, err := g.o.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("pod %s/%s is not there: %w", namespace, name, ErrRefused)
	case err != nil:
		return nil, fmt.Errorf("read pod %s/%s: %w: %w", namespace, name, mount.ErrUnavailable, err)
	case string(pod.UID) != uid:
		return nil, fmt.Errorf("pod %s/%s is another one than the token's: %w", namespace, name, ErrRefused)
	}
	return pod, nil
}

func only(values authenticationv1.ExtraValue) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// trusted refuses pods in which something else than our broker could have shown the token: that would make the volume's
// credentials everybody's who may create a pod. Who may run commands in the broker's container can still read them.
func (g *Granter) trusted(pod *corev1.Pod) error {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return fmt.Errorf("the pod has ended: %w", ErrRefused)
	}
	if sidecar.GuestVolumes(pod) == nil {
		return fmt.Errorf("the pod has no broker of its own: %w", ErrRefused)
	}
	tokens := g.tokens(pod)
	holds := func(mounts []corev1.VolumeMount) bool {
		return slices.ContainsFunc(mounts, func(m corev1.VolumeMount) bool { return slices.Contains(tokens, m.Name) })
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == sidecar.BrokerContainer {
			if repository(c.Image) != repository(g.o.Image) || len(c.Args) > 0 || c.Lifecycle != nil {
				return fmt.Errorf("the pod's broker is not of image %s, or was changed: %w", repository(g.o.Image), ErrRefused)
			}
			continue
		}
		if holds(c.VolumeMounts) {
			return fmt.Errorf("container %s sees the broker's token: %w", c.Name, ErrRefused)
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if holds(c.VolumeMounts) {
			return fmt.Errorf("container %s sees the broker's token: %w", c.Name, ErrRefused)
		}
	}
	return nil
}

// tokens are the pod's volumes with a token for us.
func (g *Granter) tokens(pod *corev1.Pod) []string {
	var names []string
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == g.o.Audience {
				names = append(names, v.Name)
			}
		}
	}
	return names
}

// repository is an image without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		image = image[:i]
	}
	return image
}

func (g *Granter) volume(ctx context.Context, pod *corev1.Pod, name string) (*mount.Volume, error) {
	if !slices.Contains(sidecar.GuestVolumes(pod), name) {
		return nil, fmt.Errorf("the pod's broker has no volume %q: %w", name, ErrRefused)
	}
	at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if at < 0 {
		return nil, fmt.Errorf("the pod has no volume %q: %w", name, ErrRefused)
	}
	m, err := g.o.Resolver.ResolveVolume(ctx, pod, pod.Spec.Volumes[at])
	if err != nil {
		return nil, err
	}
	return &m.Volume, nil
}

// tell says in an event what the pod waits for.
func (g *Granter) tell(pod *corev1.Pod, volume string, err error) {
	reason := "FailedMount"
	var e *sidecar.Error
	if errors.As(err, &e) {
		reason = string(e.Reason)
	}
	g.o.Recorder.Event(pod, corev1.EventTypeWarning, reason, fmt.Sprintf("volume %q: %v", volume, err))
}
