package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// writePair writes a fresh pair and returns its serial number.
func writePair(t *testing.T, certFile, keyFile string, now time.Time) string {
	t.Helper()
	pair, err := selfSign(servingRequest("virtual-1", nil), now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	return serial(t, &pair)
}

func serial(t *testing.T, pair *tls.Certificate) string {
	t.Helper()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber.String()
}

// handshake returns the serial number of the certificate that a client gets to see.
func handshake(t *testing.T, certificates Certificates) string {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	server := tls.Server(far, &tls.Config{GetCertificate: certificates.GetCertificate})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificateFilesFollowChanges(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	first := writePair(t, cert, key, time.Now().Add(-time.Hour))
	files, err := NewCertificateFiles(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	served := func() string { return handshake(t, files) }
	recheckNow := func() { files.mu.Lock(); files.checked = time.Time{}; files.mu.Unlock() }
	if got := served(); got != first {
		t.Errorf("first certificate: got %s, want %s", got, first)
	}
	second := writePair(t, cert, key, time.Now())
	if got := served(); got != first {
		t.Errorf("before the next check: got %s, want %s", got, first)
	}
	recheckNow()
	if got := served(); got != second {
		t.Errorf("after a change: got %s, want %s", got, second)
	}
	if err := os.WriteFile(key, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	recheckNow()
	if got := served(); got != second {
		t.Errorf("with a broken pair: got %s, want the last good one %s", got, second)
	}
	third := writePair(t, cert, key, time.Now().Add(time.Minute))
	recheckNow()
	if got := served(); got != third {
		t.Errorf("mended: got %s, want %s", got, third)
	}
}

func TestCertificateFilesMustBeThere(t *testing.T) {
	if _, err := NewCertificateFiles("/nonexistent/tls.crt", "/nonexistent/tls.key"); err == nil {
		t.Error("want an error")
	}
}

func TestServingRequest(t *testing.T) {
	got := servingRequest("virtual-1", []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "10.0.0.7"}, {Type: corev1.NodeExternalIP, Address: "10.0.0.7"},
		{Type: corev1.NodeHostName, Address: "virtual-1"}, {Type: corev1.NodeInternalIP, Address: "fd00::7"}, {Type: corev1.NodeHostName},
	})
	if got.Subject.CommonName != "system:node:virtual-1" || len(got.Subject.Organization) != 1 || got.Subject.Organization[0] != "system:nodes" {
		t.Errorf("subject: %v", got.Subject)
	}
	if len(got.IPAddresses) != 2 || len(got.DNSNames) != 1 || got.DNSNames[0] != "virtual-1" {
		t.Errorf("names: %v %v", got.IPAddresses, got.DNSNames)
	}
}

func TestRotatedCertificateAsksAndServesItsOwnMeanwhile(t *testing.T) {
	client := fake.NewClientset()
	rotated, err := NewRotatedCertificate(client, t.TempDir(), "virtual-1", []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.7"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); rotated.Run(ctx) }()
	pair, err := rotated.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.VerifyHostname("10.0.0.7"); err != nil {
		t.Error(err)
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for asked := false; !asked; {
		select {
		case <-ctx.Done():
			t.Fatal("no certificate was requested")
		case <-ticker.C:
			for _, action := range client.Actions() {
				asked = asked || action.Matches("create", "certificatesigningrequests")
			}
		}
	}
	cancel()
	<-done
}
