package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"

	certificates "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"
)

// RotatedCertificate gets its serving certificate from the cluster (signer kubernetes.io/kubelet-serving) and renews it in
// time. Until somebody has approved the request it serves a self-signed one, so that logs and exec work in clusters whose
// API server does not verify kubelets.
type RotatedCertificate struct {
	manager    certificate.Manager
	selfSigned tls.Certificate
}

var _ Certificates = (*RotatedCertificate)(nil)

// NewRotatedCertificate keeps key and certificate in dir, which must exist and be private. The client must be
// system:node:<name>: the signer refuses a request for any other name.
func NewRotatedCertificate(client kubernetes.Interface, dir, nodeName string, addresses []corev1.NodeAddress) (*RotatedCertificate, error) {
	request := servingRequest(nodeName, addresses)
	store, err := certificate.NewFileStore("sidemount-server", dir, dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("open the store of serving certificates: %w", err)
	}
	manager, err := certificate.NewManager(&certificate.Config{
		Name:             "serving certificate",
		ClientsetFn:      func(*tls.Certificate) (kubernetes.Interface, error) { return client, nil },
		GetTemplate:      func() *x509.CertificateRequest { return request },
		SignerName:       certificates.KubeletServingSignerName,
		GetUsages:        certificate.DefaultKubeletServingGetUsages,
		CertificateStore: store,
	})
	if err != nil {
		return nil, fmt.Errorf("build the manager of serving certificates: %w", err)
	}
	own, err := selfSign(request, time.Now())
	if err != nil {
		return nil, err
	}
	return &RotatedCertificate{manager: manager, selfSigned: own}, nil
}

// GetCertificate implements Certificates.
func (c *RotatedCertificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if issued := c.manager.Current(); issued != nil {
		return issued, nil
	}
	return &c.selfSigned, nil
}

// Run implements Certificates.
func (c *RotatedCertificate) Run(ctx context.Context) {
	c.manager.Start()
	<-ctx.Done()
	c.manager.Stop()
}

// servingRequest is what the signer kubernetes.io/kubelet-serving accepts
// (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers).
func servingRequest(nodeName string, addresses []corev1.NodeAddress) *x509.CertificateRequest {
	request := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
	}
	seen := map[string]bool{}
	for _, a := range addresses {
		if a.Address == "" || seen[a.Address] {
			continue
		}
		seen[a.Address] = true
		if ip := net.ParseIP(a.Address); ip != nil {
			request.IPAddresses = append(request.IPAddresses, ip)
		} else {
			request.DNSNames = append(request.DNSNames, a.Address)
		}
	}
	return request
}

func selfSign(request *x509.CertificateRequest, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a serving key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      request.Subject,
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     request.DNSNames,
		IPAddresses:  request.IPAddresses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a self-signed serving certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
