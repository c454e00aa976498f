// Package pki issues the certificates of a cluster and writes the kubeconfigs that carry them. It does not renew: a
// cluster does not live for a year.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of every certificate, counted from an hour before now, in case two clocks differ.
const lifetime = 365 * 24 * time.Hour

// Pair names the files of a certificate and its key, both PEM.
type Pair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Authority signs certificates. Its own pair lies on disk, so that a later run can issue more.
type Authority struct {
	Pair
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// OpenAuthority loads the authority of that name from dir, or creates it there.
func OpenAuthority(dir, name string) (*Authority, error) {
	a := &Authority{dir: dir, Pair: pairIn(dir, name)}
	if _, err := os.Stat(a.Key); err == nil {
		return a, a.load()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a.key = key
	if a.cert, err = sign(template, template, key.Public(), key); err != nil {
		return nil, err
	}
	return a, writePair(a.Pair, a.cert, key)
}

func (a *Authority) load() error {
	var err error
	if a.cert, err = readCertificate(a.Cert); err != nil {
		return err
	}
	a.key, err = readKey(a.Key)
	return err
}

// Request describes a certificate, which serves for both ends of a connection.
type Request struct {
	// Name of the files, without suffix.
	Name string
	// User is the common name, Groups the organizations: who a client is to Kubernetes.
	User   string
	Groups []string
	// Hosts are the DNS names and IP addresses that a server is known by.
	Hosts []string
}

// Issue signs a certificate and writes it next to the authority's. What an earlier run has issued is kept.
func (a *Authority) Issue(r Request) (Pair, error) {
	pair := pairIn(a.dir, r.Name)
	if _, err := os.Stat(pair.Key); err == nil {
		return pair, nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.User, Organization: r.Groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	cert, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate %s: %w", r.Name, err)
	}
	return pair, writePair(pair, cert, key)
}

func sign(template, parent *x509.Certificate, public any, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func pairIn(dir, name string) Pair {
	return Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}
