package object

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

const (
	// defaultExpiration is that of core/v1 ServiceAccountTokenProjection, in seconds.
	defaultExpiration = 3600
	// maxAge is the age at which a token is renewed however long it would live, as on a kubelet.
	maxAge = 24 * time.Hour
	// maxJitter keeps the renewals of pods that started together apart.
	maxJitter = 10 * time.Second
	// renewRetry is the time between attempts to renew a token that is still valid.
	renewRetry = 30 * time.Second
)

// Token is a ServiceAccount token bound to a pod.
type Token struct {
	// Value is the secret itself.
	Value string
	// Expires is when it stops being valid.
	Expires time.Time
	// Refresh is when to ask for the next one.
	Refresh time.Time
}

// Format implements fmt.Formatter: no verb prints the value.
func (t Token) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "[token until %s]", t.Expires.UTC().Format(time.RFC3339))
}

// TokensOptions configures Tokens.
type TokensOptions struct {
	// Client creates TokenRequests; required.
	Client kubernetes.Interface
	// Clock tells the time. Default: the real one.
	Clock clock.PassiveClock
}

// Tokens issues ServiceAccount tokens and keeps them until 80 % of their life, at most 24 h, have passed: the kubelet's rule.
type Tokens struct {
	client kubernetes.Interface
	clock  clock.PassiveClock

	// mu guards issued.
	mu     sync.Mutex
	issued map[tokenKey]*issue
}

type tokenKey struct {
	pod            types.UID
	serviceAccount string
	audience       string
	seconds        int64
}

// issue is the latest token for a key; its mu lets one caller at a time ask for it.
type issue struct {
	mu    sync.Mutex
	token Token
}

// NewTokens returns Tokens that hold nothing yet.
func NewTokens(o TokensOptions) (*Tokens, error) {
	if o.Client == nil {
		return nil, fmt.Errorf("client: %w", ErrOptions)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return &Tokens{client: o.Client, clock: o.Clock, issued: map[tokenKey]*issue{}}, nil
}

// Token returns a token of the pod's ServiceAccount that is bound to this very pod by its UID, for the audience (empty: the
// API server's) and a life of the given seconds (0: one hour). A token that cannot be renewed is given as long as it is
// valid. ErrBound means that the pod has gone.
func (t *Tokens) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (Token, error) {
	if seconds == 0 {
		seconds = defaultExpiration
	}
	key := tokenKey{pod.UID, pod.Spec.ServiceAccountName, audience, seconds}
	if key.serviceAccount == "" {
		key.serviceAccount = "default"
	}
	entry := t.entry(key)
	entry.mu.Lock()
	defer entry.mu.Unlock()
	now := t.clock.Now()
	if now.Before(entry.token.Refresh) {
		return entry.token, nil
	}
	token, err := t.request(ctx, pod, key)
	switch {
	case err == nil:
		entry.token = token
	case now.Before(entry.token.Expires):
		log.G(ctx).WithError(err).WithField("pod", pod.Namespace+"/"+pod.Name).Warn("token not renewed, the old one is still valid")
		entry.token.Refresh = earlier(now.Add(renewRetry), entry.token.Expires)
	default:
		return Token{}, err
	}
	return entry.token, nil
}

// Forget drops the tokens of a pod.
func (t *Tokens) Forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.issued {
		if key.pod == uid {
			delete(t.issued, key)
		}
	}
}

func (t *Tokens) entry(key tokenKey) *issue {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := t.issued[key]
	if entry == nil {
		entry = &issue{}
		t.issued[key] = entry
	}
	return entry
}

func (t *Tokens) request(ctx context.Context, pod *corev1.Pod, key tokenKey) (Token, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &key.seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if key.audience != "" {
		request.Spec.Audiences = []string{key.audience}
	}
	asked := t.clock.Now()
	answer, err := t.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, key.serviceAccount, request, metav1.CreateOptions{})
	if unbound(err) {
		err = fmt.Errorf("%w: %w", ErrBound, err)
	}
	if err != nil {
		return Token{}, fmt.Errorf("request token of ServiceAccount %s/%s: %w", pod.Namespace, key.serviceAccount, err)
	}
	expires := answer.Status.ExpirationTimestamp.Time
	if answer.Status.Token == "" || !expires.After(asked) {
		return Token{}, fmt.Errorf("request token of ServiceAccount %s/%s: the API answered without a valid token", pod.Namespace, key.serviceAccount)
	}
	return Token{Value: answer.Status.Token, Expires: expires, Refresh: refreshTime(asked, expires)}, nil
}

// unbound tells whether the API has refused because of the pod: it has gone, or has another UID.
func unbound(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	details := status.ErrStatus.Details
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) && details != nil && details.Kind == "pods"
}

// refreshTime is at 80 % of the token's life and at most maxAge after its issue, less a jitter.
func refreshTime(issued, expires time.Time) time.Time {
	life := expires.Sub(issued)
	jitter := min(rand.N(maxJitter), life/20)
	return issued.Add(min(life*8/10, maxAge) - jitter)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
