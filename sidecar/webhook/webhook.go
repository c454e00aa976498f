package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/sidemount/sidemount/sidecar"
)

// Resolver outlines the volumes of pods. *sidecar.Resolver is one.
type Resolver interface {
	Outline(ctx context.Context, pod *corev1.Pod) (sidecar.Outlined, error)
}

// Options of a Webhook.
type Options struct {
	// Resolver tells which volumes are ours. Required.
	Resolver Resolver
	// NodeResolver tells which volumes Driver publishes on its nodes: those of a pod that is reviewed at NodePath. Required.
	NodeResolver Resolver
	// Guest returns how pods reach this service; it is asked for every pod, because authorities and addresses change. Required.
	Guest func(ctx context.Context) (*sidecar.Guest, error)
	// Driver is the CSI driver that hands sessions to the sidecars of pods that are reviewed at NodePath. Required.
	Driver string
	// Compatible honours the labels of the JuiceFS CSI driver too. Default false.
	Compatible bool
	// Observe is called with the outcome of every review. nil: nobody counts.
	Observe func(Outcome)
}

// Outcome is what a review came to.
type Outcome string

// The outcomes.
const (
	// Injected: the pod has got its sidecars.
	Injected Outcome = "injected"
	// Skipped: the pod has nothing of ours, or does not want it; it may have been marked as reviewed.
	Skipped Outcome = "skipped"
	// Denied: the pod has a volume of ours that cannot be served as it is described.
	Denied Outcome = "denied"
	// Failed: the API server did not answer; its failure policy decides.
	Failed Outcome = "failed"
)

// Webhook reviews pods.
type Webhook struct{ o Options }

// New checks the options.
func New(o Options) (*Webhook, error) {
	if o.Resolver == nil || o.NodeResolver == nil || o.Guest == nil || o.Driver == "" {
		return nil, errors.New("the webhook needs its resolvers, how pods reach it, and a driver")
	}
	if o.Observe == nil {
		o.Observe = func(Outcome) {}
	}
	return &Webhook{o}, nil
}

// NodePath is where pods are reviewed whose nodes run our CSI driver: their sidecars get their sessions from it, and nothing in the pod
// is privileged.
const NodePath = "/node"

// RequiredPath is where pods are reviewed that the cluster refuses without injection: those that need none are marked with ReviewedAnnotation.
const RequiredPath = "/required"

// ReviewedAnnotation tells the cluster's policy that the webhook has seen a pod and has left it as it is. Who sets it himself takes his own pod out of what
// the policy is for, as he could with InjectLabel: that no pod runs without its volume because the webhook is away.
const ReviewedAnnotation = "sidemount.io/reviewed"

// Handler serves the reviews, at any path but NodePath of pods that bring their own broker.
func (w *Webhook) Handler() http.Handler { return http.HandlerFunc(w.serve) }

// ErrVersion means that the cluster has no native sidecars.
var ErrVersion = errors.New("Kubernetes 1.29 or later is needed, for native sidecars")

// CheckVersion tells whether pods of this cluster can have native sidecars.
func CheckVersion(v *version.Info) error {
	major, err1 := strconv.Atoi(v.Major)
	// Some distributions add a plus sign.
	minor, err2 := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("read the API server's version %q: %w", v.GitVersion, err)
	}
	if major > 1 || minor >= 29 {
		return nil
	}
	return fmt.Errorf("the API server has version %s: %w", v.GitVersion, ErrVersion)
}
