package webhook

import (
	"bytes"
	"context"
	"encoding/pem"
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

// VolumeResolver resolves one volume with its Secret, and outlines several without. *sidecar.Resolver is one.
type VolumeResolver interface {
	OutlineVolumes(ctx context.Context, pod *corev1.Pod, names []string) ([]sidecar.Mount, error)
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
	// Guest returns how pods reach this service at the moment.
	Guest func(ctx context.Context) (*sidecar.Guest, error)
	// Recorder tells the user of a pod why a volume is missing.
	Recorder Recorder
}

// Granter gives the brokers of pods their volumes.
type Granter struct{ o GranterOptions }

var _ grant.Granter = (*Granter)(nil)

// NewGranter checks the options.
func NewGranter(o GranterOptions) (*Granter, error) {
	if o.Client == nil || o.Resolver == nil || o.Audience == "" || o.Guest == nil || o.Recorder == nil {
		return nil, errors.New("the granter needs a client, a resolver, an audience, a guest and a recorder")
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
	logger := log.G(ctx).WithField("namespace", pod.Namespace).WithField("pod", pod.Name)
	mounts, err := g.outline(ctx, pod)
	if err == nil {
		err = g.trusted(ctx, pod, mounts)
	}
	if err != nil {
		logger.WithError(err).Warn("volumes refused")
		g.tell(pod, err)
		return nil, err
	}
	results := make([]grant.Result, len(r.Volumes))
	for i, name := range r.Volumes {
		m, err := g.volume(ctx, pod, name)
		if err != nil {
			results[i].Error = grant.Fail(err)
			g.tell(pod, fmt.Errorf("volume %q: %w", name, err))
			continue
		}
		results[i].Volume = &m.Volume
	}
	logger.WithField("volumes", strings.Join(r.Volumes, ",")).Info("volumes asked for")
	return results, nil
}

// outline describes the pod's volumes as they were when it was injected: its containers mount others in their place since.
func (g *Granter) outline(ctx context.Context, pod *corev1.Pod) ([]sidecar.Mount, error) {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil, fmt.Errorf("the pod has ended: %w", ErrRefused)
	}
	volumes := sidecar.GuestVolumes(pod)
	if volumes == nil {
		return nil, fmt.Errorf("the pod has no broker of its own: %w", ErrRefused)
	}
	return g.o.Resolver.OutlineVolumes(ctx, pod, volumes)
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

// trusted refuses pods in which something else than our sidecars could get at the volumes: that would make their credentials
// everybody's who may create a pod.
func (g *Granter) trusted(ctx context.Context, pod *corev1.Pod, mounts []sidecar.Mount) error {
	guest, err := g.o.Guest(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", mount.ErrUnavailable, err)
	}
	ours := certificates(guest.CA)
	return guest.Audit(pod, mounts, func(pem string) bool {
		theirs := certificates(pem)
		return len(theirs) > 0 && !slices.ContainsFunc(theirs, func(c string) bool { return !slices.Contains(ours, c) })
	})
}

// certificates are the contents of the blocks of a text in PEM; nil if there is anything else in it.
func certificates(text string) []string {
	var all []string
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil
		}
		all = append(all, string(block.Bytes))
	}
	return all
}

func (g *Granter) volume(ctx context.Context, pod *corev1.Pod, name string) (sidecar.Mount, error) {
	if !slices.Contains(sidecar.GuestVolumes(pod), name) {
		return sidecar.Mount{}, fmt.Errorf("the pod's broker has no volume %q: %w", name, ErrRefused)
	}
	at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if at < 0 {
		return sidecar.Mount{}, fmt.Errorf("the pod has no volume %q: %w", name, ErrRefused)
	}
	return g.o.Resolver.ResolveVolume(ctx, pod, pod.Spec.Volumes[at])
}

// tell says in an event what the pod waits for.
func (g *Granter) tell(pod *corev1.Pod, err error) {
	reason := "FailedMount"
	var e *sidecar.Error
	if errors.As(err, &e) {
		reason = string(e.Reason)
	}
	g.o.Recorder.Event(pod, corev1.EventTypeWarning, reason, err.Error())
}
