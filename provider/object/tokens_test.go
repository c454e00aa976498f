package object

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
)

// issuer is the API server's side of TokenRequest.
type issuer struct {
	clock *clocktesting.FakePassiveClock

	mu       sync.Mutex
	requests []*authenticationv1.TokenRequest
	accounts []string
	err      error
}

func newTokens(t *testing.T) (*Tokens, *issuer) {
	t.Helper()
	is := &issuer{clock: clocktesting.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	client := fake.NewClientset()
	client.PrependReactor("create", "serviceaccounts", is.issue)
	tokens, err := NewTokens(TokensOptions{Client: client, Clock: is.clock})
	if err != nil {
		t.Fatal(err)
	}
	return tokens, is
}

func (is *issuer) issue(a ktesting.Action) (bool, runtime.Object, error) {
	is.mu.Lock()
	defer is.mu.Unlock()
	create := a.(ktesting.CreateActionImpl)
	request := create.Object.(*authenticationv1.TokenRequest).DeepCopy()
	is.requests = append(is.requests, request)
	is.accounts = append(is.accounts, create.Name)
	if is.err != nil {
		return true, nil, is.err
	}
	answer := request.DeepCopy()
	answer.Status.Token = fmt.Sprintf("token-%d", len(is.requests))
	answer.Status.ExpirationTimestamp = metav1.NewTime(is.clock.Now().Add(time.Duration(*request.Spec.ExpirationSeconds) * time.Second))
	return true, answer, nil
}

func (is *issuer) fail(err error) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.err = err
}

func tokenPod() *corev1.Pod {
	pod := podWith("u1")
	pod.Spec.ServiceAccountName = "robot"
	return pod
}

func token(t *testing.T, tokens *Tokens, audience string, seconds int64) Token {
	t.Helper()
	tok, err := tokens.Token(t.Context(), tokenPod(), audience, seconds)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenIsBoundToThePod(t *testing.T) {
	tokens, is := newTokens(t)
	token(t, tokens, "vault", 600)
	token(t, tokens, "", 0)
	spec := is.requests[0].Spec
	if want := (authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "pod-u1", UID: "u1"}); *spec.BoundObjectRef != want {
		t.Errorf("bound to %v", spec.BoundObjectRef)
	}
	if len(spec.Audiences) != 1 || spec.Audiences[0] != "vault" || *spec.ExpirationSeconds != 600 || is.accounts[0] != "robot" {
		t.Errorf("got %v of %s", spec, is.accounts[0])
	}
	if spec := is.requests[1].Spec; len(spec.Audiences) != 0 || *spec.ExpirationSeconds != 3600 {
		t.Errorf("defaults: got %v", spec)
	}
	pod := podWith("u2")
	if _, err := tokens.Token(t.Context(), pod, "", 0); err != nil || is.accounts[2] != "default" {
		t.Errorf("account %s, %v", is.accounts[2], err)
	}
}

func TestTokenIsRenewedAtFourFifthsOfItsLife(t *testing.T) {
	for _, tc := range []struct {
		seconds     int64
		early, late time.Duration
	}{
		{600, 449 * time.Second, 481 * time.Second},
		{3600, 2869 * time.Second, 2881 * time.Second},
		{7 * 24 * 3600, 24*time.Hour - 11*time.Second, 24*time.Hour + time.Second},
	} {
		tokens, is := newTokens(t)
		begun := is.clock.Now()
		first := token(t, tokens, "", tc.seconds)
		is.clock.SetTime(begun.Add(tc.early))
		if got := token(t, tokens, "", tc.seconds); got != first {
			t.Errorf("%d s: renewed after %s", tc.seconds, tc.early)
		}
		is.clock.SetTime(begun.Add(tc.late))
		if got := token(t, tokens, "", tc.seconds); got.Value == first.Value {
			t.Errorf("%d s: not renewed after %s", tc.seconds, tc.late)
		}
	}
}

func TestTokenThatCannotBeRenewedIsGivenWhileValid(t *testing.T) {
	tokens, is := newTokens(t)
	begun := is.clock.Now()
	first := token(t, tokens, "", 600)
	down := errors.New("connection refused")
	is.fail(down)
	is.clock.SetTime(begun.Add(500 * time.Second))
	got := token(t, tokens, "", 600)
	if got.Value != first.Value || !got.Refresh.After(is.clock.Now()) || got.Refresh.After(got.Expires) {
		t.Errorf("got %v to be refreshed at %s", got, got.Refresh)
	}
	is.clock.SetTime(begun.Add(601 * time.Second))
	if _, err := tokens.Token(t.Context(), tokenPod(), "", 600); !errors.Is(err, down) {
		t.Errorf("after its end: got %v", err)
	}
	is.fail(nil)
	if got := token(t, tokens, "", 600); got.Value == first.Value {
		t.Error("the expired token is given")
	}
}

func TestTokensAreKeptApartAndForgotten(t *testing.T) {
	tokens, is := newTokens(t)
	a, b := token(t, tokens, "a", 600), token(t, tokens, "b", 600)
	if a.Value == b.Value {
		t.Error("one token for two audiences")
	}
	tokens.Forget("u1")
	if got := token(t, tokens, "a", 600); got.Value == a.Value {
		t.Error("a forgotten token is given")
	}
	if n := len(is.requests); n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestConcurrentCallersShareOneRequest(t *testing.T) {
	tokens, is := newTokens(t)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if _, err := tokens.Token(t.Context(), tokenPod(), "", 600); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := len(is.requests); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestTokenOfAPodThatHasGone(t *testing.T) {
	replaced := apierrors.NewConflict(corev1.Resource("pods"), "pod-u1", errors.New("the UID in the bound object reference does not match"))
	for err, want := range map[error]bool{
		replaced: true,
		apierrors.NewNotFound(corev1.Resource("pods"), "pod-u1"):                                           true,
		apierrors.NewNotFound(corev1.Resource("serviceaccounts"), "robot"):                                 false,
		apierrors.NewForbidden(corev1.Resource("serviceaccounts"), "robot", errors.New("no relationship")): false,
		errors.New("connection refused"):                                                                   false,
	} {
		tokens, is := newTokens(t)
		is.fail(err)
		if _, got := tokens.Token(t.Context(), tokenPod(), "", 600); errors.Is(got, ErrBound) != want || !errors.Is(got, err) {
			t.Errorf("%v: got %v", err, got)
		}
	}
}

func TestTokenDoesNotPrint(t *testing.T) {
	tok := Token{Value: "s3cr3t"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(format, tok); strings.Contains(got, "s3cr3t") || strings.Contains(got, "733363") {
			t.Errorf("%s prints %s", format, got)
		}
	}
}
