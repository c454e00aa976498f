package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/grant"
	"github.com/sidemount/sidemount/sidecar/webhook/certificate"
)

// resolver knows the one volume "data".
type resolver struct{ err error }

func (resolver) OutlineVolumes(_ context.Context, _ *corev1.Pod, names []string) ([]sidecar.Mount, error) {
	if !slices.Equal(names, []string{"data"}) {
		return nil, errors.New("other volumes")
	}
	return oneVolume().Mounts, nil
}

func (r resolver) ResolveVolume(_ context.Context, _ *corev1.Pod, v corev1.Volume) (sidecar.Mount, error) {
	m := oneVolume().Mounts[0]
	m.Volume.Secret = mount.Secret{"metaurl": "hidden"}
	if v.Name != "data" {
		return m, errors.New("another volume")
	}
	return m, r.err
}

type events []string

func (e *events) Event(_ runtime.Object, _, reason, message string) {
	*e = append(*e, reason+": "+message)
}

var caPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("ours")}))

func pemGuest(ctx context.Context) (*sidecar.Guest, error) {
	g, err := guest(ctx)
	g.CA = caPEM
	return g, err
}

// injectedPod is a pod as the API server has it.
func injectedPod(t *testing.T) *corev1.Pod {
	t.Helper()
	pod := new(corev1.Pod)
	if err := json.Unmarshal([]byte(podJSON), pod); err != nil {
		t.Fatal(err)
	}
	pod.Namespace, pod.UID = "shop", "uid-web"
	g, _ := pemGuest(t.Context())
	out, err := sidecar.Inject(pod, oneVolume().Mounts, sidecar.InjectOptions{Guest: g})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// review is what the API server says of every token.
func review() authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"us"},
		User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:shop:default",
			Extra:    map[string]authenticationv1.ExtraValue{podNameExtra: {"web"}, podUIDExtra: {"uid-web"}},
		},
	}
}

func grantTo(t *testing.T, status authenticationv1.TokenReviewStatus, pod *corev1.Pod, r resolver, volumes ...string) ([]grant.Result, *events, error) {
	t.Helper()
	client := fake.NewClientset(pod)
	client.PrependReactor("create", "tokenreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		asked := a.(ktesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		if asked.Spec.Token != "t" || !slices.Equal(asked.Spec.Audiences, []string{"us"}) {
			t.Errorf("review of %+v", asked.Spec)
		}
		return true, &authenticationv1.TokenReview{Status: status}, nil
	})
	seen := new(events)
	g, err := NewGranter(GranterOptions{Client: client, Resolver: r, Audience: "us", Guest: pemGuest, Recorder: seen})
	if err != nil {
		t.Fatal(err)
	}
	results, err := g.Grant(t.Context(), grant.Request{Token: "t", Volumes: volumes})
	return results, seen, err
}

func TestAPodGetsItsOwnVolumes(t *testing.T) {
	got, seen, err := grantTo(t, review(), injectedPod(t), resolver{}, "data", "other")
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Volume == nil || got[0].Volume.Secret["metaurl"] != "hidden" {
		t.Errorf("got %+v", got[0])
	}
	// The pod has a volume of that name, but its broker was not made for it.
	if got[1].Volume != nil || got[1].Error == nil || len(*seen) != 1 {
		t.Errorf("got %+v, %v", got[1], *seen)
	}
}

func TestAVolumeThatIsWrongIsToldToPodAndUser(t *testing.T) {
	wrong := &sidecar.Error{Reason: sidecar.ReasonSecretNotFound, Object: "Secret a/b", Message: "is not found", Cure: "create it"}
	got, seen, err := grantTo(t, review(), injectedPod(t), resolver{err: wrong}, "data")
	if err != nil || got[0].Error == nil || got[0].Error.Transient {
		t.Fatalf("got %+v, %v", got, err)
	}
	if len(*seen) != 1 || !strings.HasPrefix((*seen)[0], "SecretNotFound: ") || !strings.Contains((*seen)[0], "create it") {
		t.Errorf("events %v", *seen)
	}
}

func TestNothingIsGranted(t *testing.T) {
	for name, change := range map[string]func(*authenticationv1.TokenReviewStatus, *corev1.Pod){
		"for a token that is not valid": func(s *authenticationv1.TokenReviewStatus, _ *corev1.Pod) { s.Authenticated = false },
		"for a token for somebody else": func(s *authenticationv1.TokenReviewStatus, _ *corev1.Pod) { s.Audiences = []string{"api"} },
		"for a token without a pod":     func(s *authenticationv1.TokenReviewStatus, _ *corev1.Pod) { s.User.Extra = nil },
		"for a user":                    func(s *authenticationv1.TokenReviewStatus, _ *corev1.Pod) { s.User.Username = "admin" },
		"for a pod that is not there":   func(s *authenticationv1.TokenReviewStatus, _ *corev1.Pod) { s.User.Extra[podNameExtra] = []string{"x"} },
		"in another namespace": func(s *authenticationv1.TokenReviewStatus, _ *corev1.Pod) {
			s.User.Username = "system:serviceaccount:other:default"
		},
		"to a later pod of the same name": func(_ *authenticationv1.TokenReviewStatus, p *corev1.Pod) { p.UID = "later" },
		"to a pod that has ended":         func(_ *authenticationv1.TokenReviewStatus, p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"to a pod without a broker":       func(_ *authenticationv1.TokenReviewStatus, p *corev1.Pod) { p.Spec.InitContainers = nil },
		"to another client":               func(_ *authenticationv1.TokenReviewStatus, p *corev1.Pod) { p.Spec.InitContainers[1].Image = "evil" },
		"behind another authority": func(_ *authenticationv1.TokenReviewStatus, p *corev1.Pod) {
			p.Spec.InitContainers[0].Env[0].Value += strings.Replace(caPEM, "b3Vycw", "ZXZpbA", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, pod := review(), injectedPod(t)
			change(&status, pod)
			got, _, err := grantTo(t, status, pod, resolver{}, "data")
			if err == nil || got != nil || errors.Is(err, mount.ErrUnavailable) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// granted is a Granter that grants everything.
type granted struct{}

func (granted) Grant(_ context.Context, r grant.Request) ([]grant.Result, error) {
	return make([]grant.Result, 0), errors.New("refused " + r.Volumes[0])
}

func TestOnePortServesReviewsAndGrants(t *testing.T) {
	k, err := certificate.New(certificate.Options{Client: fake.NewClientset(), Namespace: "ns", Secret: "tls", Names: []string{"hook.ns.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	w, _ := newWebhook(t, &outlines{out: oneVolume()}, false)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := &Server{Certificate: k.Certificate, Reviews: w.Handler(), Grants: granted{}}
	go func() { ended <- s.serve(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := grant.New(grant.Options{Servers: []string{listener.Addr().String()}, ServerName: "hook.ns.svc", CA: k.CA(), TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ask(t.Context(), []string{"data"}); err == nil || !strings.Contains(err.Error(), "refused data") {
		t.Errorf("got %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the certificate is not what is tested
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Post("https://"+listener.Addr().String(), "application/json", bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("got %s", response.Status)
	}
}
