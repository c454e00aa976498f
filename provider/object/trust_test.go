package object

import (
	"bytes"
	"encoding/pem"
	"errors"
	"testing"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func block(kind, text string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(text)}))
}

func bundle(name, signer, content string) *certificatesv1beta1.ClusterTrustBundle {
	return &certificatesv1beta1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"for": name}},
		Spec:       certificatesv1beta1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: content},
	}
}

func TestTrustAnchors(t *testing.T) {
	yes := true
	a, b := block("CERTIFICATE", "a"), block("CERTIFICATE", "b")
	name := func(s string) *string { return &s }
	everything := &metav1.LabelSelector{}
	bundles := NewTrustBundles(fake.NewClientset(
		bundle("one", "", "# comment\n"+b+a+b+block("PRIVATE KEY", "x")),
		bundle("signed-1", "example.com/ca", a),
		bundle("signed-2", "example.com/ca", b),
		bundle("other", "example.com/other", block("CERTIFICATE", "c")),
	))
	for label, tc := range map[string]struct {
		projection corev1.ClusterTrustBundleProjection
		want       string
		err        error
	}{
		"by name, each certificate once":  {projection: corev1.ClusterTrustBundleProjection{Name: name("one")}, want: a + b},
		"by signer":                       {projection: corev1.ClusterTrustBundleProjection{SignerName: name("example.com/ca"), LabelSelector: everything}, want: a + b},
		"by signer and label":             {projection: corev1.ClusterTrustBundleProjection{SignerName: name("example.com/ca"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"for": "signed-2"}}}, want: b},
		"no selector selects nothing":     {projection: corev1.ClusterTrustBundleProjection{SignerName: name("example.com/ca")}, err: ErrNoTrustBundle},
		"missing":                         {projection: corev1.ClusterTrustBundleProjection{Name: name("no")}, err: ErrNoTrustBundle},
		"missing but optional":            {projection: corev1.ClusterTrustBundleProjection{Name: name("no"), Optional: &yes}},
		"neither a name nor a signer":     {projection: corev1.ClusterTrustBundleProjection{}, err: ErrNoTrustBundle},
		"missing signer that is optional": {projection: corev1.ClusterTrustBundleProjection{SignerName: name("x/y"), LabelSelector: everything, Optional: &yes}},
	} {
		t.Run(label, func(t *testing.T) {
			got, err := bundles.TrustAnchors(t.Context(), &tc.projection)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if !bytes.Equal(got, []byte(tc.want)) {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}
