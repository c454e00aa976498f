package object

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"slices"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// TrustBundles reads ClusterTrustBundles from the API; it keeps nothing.
type TrustBundles struct {
	client kubernetes.Interface
}

// NewTrustBundles returns TrustBundles that read with the client.
func NewTrustBundles(client kubernetes.Interface) *TrustBundles { return &TrustBundles{client: client} }

// TrustAnchors returns the certificates that the projection selects, as PEM without headers or comments, each once and in a
// stable order. That it selects none is an error unless it is optional.
func (t *TrustBundles) TrustAnchors(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	bundles, err := t.selected(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(bundles) == 0 && (p.Optional == nil || !*p.Optional) {
		return nil, fmt.Errorf("no ClusterTrustBundle for %s: %w", selection(p), ErrNoTrustBundle)
	}
	return anchors(bundles), nil
}

func (t *TrustBundles) selected(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]certificatesv1beta1.ClusterTrustBundle, error) {
	api := t.client.CertificatesV1beta1().ClusterTrustBundles()
	if p.Name != nil {
		bundle, err := api.Get(ctx, *p.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read ClusterTrustBundle %s: %w", *p.Name, err)
		}
		return []certificatesv1beta1.ClusterTrustBundle{*bundle}, nil
	}
	if p.SignerName == nil {
		return nil, fmt.Errorf("ClusterTrustBundle projection names neither a bundle nor a signer: %w", ErrNoTrustBundle)
	}
	// core/v1: an absent selector matches nothing, an empty one everything.
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("label selector of ClusterTrustBundle projection: %w", err)
	}
	if p.LabelSelector == nil {
		return nil, nil
	}
	list, err := api.List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", *p.SignerName).String(),
		LabelSelector: selector.String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list ClusterTrustBundles of signer %s: %w", *p.SignerName, err)
	}
	return slices.DeleteFunc(list.Items, func(b certificatesv1beta1.ClusterTrustBundle) bool {
		return b.Spec.SignerName != *p.SignerName
	}), nil
}

func selection(p *corev1.ClusterTrustBundleProjection) string {
	if p.Name != nil {
		return "name " + *p.Name
	}
	return "signer " + *p.SignerName
}

// anchors merges the bundles.
func anchors(bundles []certificatesv1beta1.ClusterTrustBundle) []byte {
	var blocks [][]byte
	for i := range bundles {
		for block, rest := pem.Decode([]byte(bundles[i].Spec.TrustBundle)); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" {
				blocks = append(blocks, block.Bytes)
			}
		}
	}
	slices.SortFunc(blocks, bytes.Compare)
	var out bytes.Buffer
	for _, b := range slices.CompactFunc(blocks, bytes.Equal) {
		// Writing to a buffer cannot fail, and a block without headers is always valid.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: b})
	}
	return out.Bytes()
}
