package certificate

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func keeper(t *testing.T, client *fake.Clientset, now *time.Time) *Keeper {
	t.Helper()
	k, err := New(Options{
		Client: client, Namespace: "ns", Secret: "tls", Configuration: "hook", Names: []string{"hook.ns.svc", "10.0.0.1"},
		Now: func() time.Time { return *now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func cluster() *fake.Clientset {
	return fake.NewClientset(&admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "hook", ResourceVersion: "1"},
		Webhooks:   []admissionregistrationv1.MutatingWebhook{{Name: "a"}, {Name: "b"}},
	})
}

func sync1(t *testing.T, k *Keeper) {
	t.Helper()
	if err := k.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Check(); err != nil {
		t.Fatal(err)
	}
}

// trusted fails unless somebody who trusts ca accepts the keeper's certificate at that time.
func trusted(t *testing.T, k *Keeper, ca []byte, now time.Time) {
	t.Helper()
	c, err := k.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, name := range []string{"hook.ns.svc", "10.0.0.1"} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFirstStart(t *testing.T) {
	client, now := cluster(), start
	k := keeper(t, client, &now)
	if _, err := k.Certificate(nil); err == nil || k.Check() == nil {
		t.Error("there is a certificate before the first look")
	}
	sync1(t, k)
	trusted(t, k, k.CA(), now)
	c, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "hook", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, k.CA()) {
			t.Errorf("webhook %s trusts %q", w.Name, w.ClientConfig.CABundle)
		}
	}
	client.ClearActions()
	sync1(t, k)
	for _, a := range client.Actions() {
		if a.GetVerb() != "get" {
			t.Errorf("%s %s although everything is in order", a.GetVerb(), a.GetResource().Resource)
		}
	}
}

// The chart makes the Secret, so that it goes with the release and nobody needs the right to create Secrets.
func TestASecretThatIsThereIsFilled(t *testing.T) {
	client, now := cluster(), start
	labels := map[string]string{"app.kubernetes.io/managed-by": "Helm"}
	empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "tls", Labels: labels}, Type: corev1.SecretTypeOpaque}
	if err := client.Tracker().Add(empty); err != nil {
		t.Fatal(err)
	}
	client.PrependReactor("create", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "tls", errors.New("no right"))
	})
	k := keeper(t, client, &now)
	sync1(t, k)
	trusted(t, k, k.CA(), now)
	s, err := client.CoreV1().Secrets("ns").Get(t.Context(), "tls", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Type != corev1.SecretTypeOpaque || s.Labels["app.kubernetes.io/managed-by"] != "Helm" || len(s.Data[keyServe]) == 0 {
		t.Errorf("the Secret is now %s with labels %v and %d keys", s.Type, s.Labels, len(s.Data))
	}
}

func TestReplicasAgree(t *testing.T) {
	client, now := cluster(), start
	// As an API server does, so that the first to write wins: fake clients do not look at versions.
	var mu sync.Mutex
	created := false
	client.PrependReactor("create", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if created {
			return true, nil, apierrors.NewAlreadyExists(corev1.Resource("secrets"), "tls")
		}
		created = true
		return false, nil, nil
	})
	keepers := []*Keeper{keeper(t, client, &now), keeper(t, client, &now), keeper(t, client, &now)}
	var all sync.WaitGroup
	for _, k := range keepers {
		// What two of them publish at once is settled by the next look.
		all.Go(func() { _ = k.Sync(context.Background()) })
	}
	all.Wait()
	for _, k := range keepers {
		sync1(t, k)
		if !bytes.Equal(k.CA(), keepers[0].CA()) {
			t.Error("replicas have different authorities")
		}
		trusted(t, k, keepers[0].CA(), now)
	}
}

func TestRenewal(t *testing.T) {
	client, now := cluster(), start
	k := keeper(t, client, &now)
	sync1(t, k)
	first, _ := k.Certificate(nil)
	ca := k.CA()
	for _, step := range []struct {
		after   time.Duration
		renewed bool
		why     string
	}{
		{servingLife - servingLeft - time.Hour, false, "it is valid for long enough"},
		{2 * time.Hour, true, "it has less than its reserve left"},
		{servingLife + 24*time.Hour, true, "the webhook was away until after its end"},
		{-5 * servingLife, true, "the clock was wrong before"},
	} {
		now = now.Add(step.after)
		sync1(t, k)
		next, _ := k.Certificate(nil)
		if same := bytes.Equal(first.Certificate[0], next.Certificate[0]); same == step.renewed {
			t.Errorf("renewed: %t, although %s", !same, step.why)
		}
		trusted(t, k, k.CA(), now)
		first = next
	}
	if bytes.Equal(ca, k.CA()) {
		t.Error("an authority from the future was kept")
	}
}

func TestOldAuthoritiesAreTrustedUntilTheirEnd(t *testing.T) {
	client, now := cluster(), start
	k := keeper(t, client, &now)
	sync1(t, k)
	old := k.CA()
	now = now.Add(authorityLife - authorityLeft + time.Hour)
	sync1(t, k)
	trusted(t, k, k.CA(), now)
	if !bytes.HasSuffix(k.CA(), old) || bytes.Equal(k.CA(), old) {
		t.Error("the old authority is not beside the new one")
	}
	now = now.Add(authorityLeft)
	sync1(t, k)
	now = now.Add(authorityLife - authorityLeft)
	sync1(t, k)
	if bytes.Contains(k.CA(), old) {
		t.Error("an expired authority is still trusted")
	}
}

func TestDamageHeals(t *testing.T) {
	for name, damage := range map[string]func(*corev1.Secret){
		"no certificate": func(s *corev1.Secret) { delete(s.Data, keyServe) },
		"no authority":   func(s *corev1.Secret) { delete(s.Data, keyCA) },
		"nonsense":       func(s *corev1.Secret) { s.Data[keyServe], s.Data[keyCA] = []byte("x"), []byte("y") },
		"another key":    func(s *corev1.Secret) { s.Data[keySecret] = s.Data[keyCAKey] },
		"not an authority": func(s *corev1.Secret) {
			s.Data[keyCA], s.Data[keyCAKey] = s.Data[keyServe], s.Data[keySecret]
		},
		"everything": func(s *corev1.Secret) { s.Data = nil },
	} {
		t.Run(name, func(t *testing.T) {
			client, now := cluster(), start
			k := keeper(t, client, &now)
			sync1(t, k)
			s, err := client.CoreV1().Secrets("ns").Get(t.Context(), "tls", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			damage(s)
			if _, err := client.CoreV1().Secrets("ns").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			sync1(t, k)
			trusted(t, k, k.CA(), now)
		})
	}
}

func TestAnotherNameIsAdded(t *testing.T) {
	client, now := cluster(), start
	sync1(t, keeper(t, client, &now))
	k := keeper(t, client, &now)
	k.o.Names = append(k.o.Names, "other.example")
	sync1(t, k)
	c, _ := k.Certificate(nil)
	if err := c.Leaf.VerifyHostname("other.example"); err != nil {
		t.Error(err)
	}
}

func TestTheOldCertificateServesWhileTheAPIServerIsAway(t *testing.T) {
	client, now := cluster(), start
	k := keeper(t, client, &now)
	sync1(t, k)
	client.PrependReactor("*", "*", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("away") })
	if k.Sync(t.Context()) == nil || k.Check() == nil {
		t.Error("nobody is told")
	}
	if _, err := k.Certificate(nil); err != nil {
		t.Error(err)
	}
}

// The patch must not overwrite what somebody else has changed between.
func TestPublishingGuardsTheVersion(t *testing.T) {
	client, now := cluster(), start
	k := keeper(t, client, &now)
	sync1(t, k)
	for _, a := range client.Actions() {
		p, ok := a.(ktesting.PatchAction)
		if !ok {
			continue
		}
		var ops []struct{ Op, Path, Value string }
		if err := json.Unmarshal(p.GetPatch(), &ops); err != nil {
			t.Fatal(err)
		}
		if ops[0].Op != "test" || ops[0].Path != "/metadata/resourceVersion" || len(ops) != 3 {
			t.Errorf("got %v", ops)
		}
		return
	}
	t.Error("nothing was published")
}
