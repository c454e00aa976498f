package main

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPermittedWaitsForTheAuthorizer(t *testing.T) {
	refusals := 2
	got, err := permitted(t.Context(), "s", func(context.Context, string, metav1.GetOptions) (string, error) {
		if refusals == 0 {
			return "object", nil
		}
		refusals--
		return "", apierrors.NewForbidden(corev1.Resource("secrets"), "s", nil)
	})
	if err != nil || got != "object" {
		t.Fatalf("got %q, %v after the refusals", got, err)
	}
}

func TestPermittedGivesUp(t *testing.T) {
	calls := 0
	_, err := permitted(t.Context(), "s", func(context.Context, string, metav1.GetOptions) (string, error) {
		calls++
		return "", apierrors.NewForbidden(corev1.Resource("secrets"), "s", nil)
	})
	if !apierrors.IsForbidden(err) || calls < 3 {
		t.Fatalf("got %v after %d calls, want Forbidden after some", err, calls)
	}
}

func TestPermittedAsksOnceForWhatIsMissing(t *testing.T) {
	calls := 0
	_, err := permitted(t.Context(), "s", func(context.Context, string, metav1.GetOptions) (string, error) {
		calls++
		return "", apierrors.NewNotFound(corev1.Resource("secrets"), "s")
	})
	if !apierrors.IsNotFound(err) || calls != 1 {
		t.Fatalf("got %v after %d calls, want NotFound after one", err, calls)
	}
}
