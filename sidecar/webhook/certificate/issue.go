package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	// authorityLife and authorityLeft: pods keep the authority that they were created with, so that it lasts long and is
	// replaced early; the old one stays trusted until its end.
	authorityLife = 10 * 365 * 24 * time.Hour
	authorityLeft = 2 * 365 * 24 * time.Hour
	// servingLife and servingLeft are the serving certificate's.
	servingLife = 90 * 24 * time.Hour
	servingLeft = 30 * 24 * time.Hour
	// skew is how far clocks may differ.
	skew = time.Hour
)

// Keys of the Secret. The serving pair has the names of the type kubernetes.io/tls.
const (
	keyCA     = "ca.crt"
	keyCAKey  = "ca.key"
	keyServe  = "tls.crt"
	keySecret = "tls.key"
)

// bundle is the content of the Secret: authorities in PEM with the newest first, its key, and a serving certificate by it.
type bundle map[string][]byte

// renewed returns what should be in the Secret at a time, and whether that is something else than b.
func (b bundle) renewed(now time.Time, names []string) (bundle, bool, error) {
	authority, err := b.authority()
	if err != nil || authority.cert.NotAfter.Sub(now) < authorityLeft || now.Before(authority.cert.NotBefore) {
		b, authority, err = b.newAuthority(now)
		if err != nil {
			return nil, false, err
		}
	} else if b.serves(now, names) {
		return b, false, nil
	}
	next, err := b.newServing(now, names, authority)
	return next, true, err
}

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (b bundle) authority() (pair, error) {
	c, err := tls.X509KeyPair(b[keyCA], b[keyCAKey])
	if err != nil {
		return pair{}, err
	}
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || c.Leaf == nil || !c.Leaf.IsCA {
		return pair{}, errors.New("not an authority")
	}
	return pair{c.Leaf, key}, nil
}

// serves tells whether the serving certificate is good for all names for long enough.
func (b bundle) serves(now time.Time, names []string) bool {
	c, err := tls.X509KeyPair(b[keyServe], b[keySecret])
	if err != nil || c.Leaf == nil || c.Leaf.NotAfter.Sub(now) < servingLeft {
		return false
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b[keyCA]) {
		return false
	}
	for _, name := range names {
		if c.Leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	_, err = c.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	return err == nil
}

// newAuthority puts a new authority in front of those that are still valid.
func (b bundle) newAuthority(now time.Time) (bundle, pair, error) {
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "sidemount-webhook-ca"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	p, certPEM, keyPEM, err := issue(template, nil)
	if err != nil {
		return nil, pair{}, err
	}
	return bundle{keyCA: append(certPEM, valid(b[keyCA], now)...), keyCAKey: keyPEM}, p, nil
}

// valid returns the certificates of a bundle that have not expired.
func valid(text []byte, now time.Time) []byte {
	var out bytes.Buffer
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out.Bytes()
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && now.Before(c.NotAfter) {
			// Writing to memory does not fail.
			_ = pem.Encode(&out, block)
		}
	}
}

func (b bundle) newServing(now time.Time, names []string, by pair) (bundle, error) {
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0]},
		NotBefore: now.Add(-skew), NotAfter: now.Add(servingLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	_, certPEM, keyPEM, err := issue(template, &by)
	if err != nil {
		return nil, err
	}
	return bundle{keyCA: b[keyCA], keyCAKey: b[keyCAKey], keyServe: certPEM, keySecret: keyPEM}, nil
}

// issue makes a key and a certificate for it, signed by itself if by is nil.
func issue(template *x509.Certificate, by *pair) (p pair, certPEM, keyPEM []byte, err error) {
	fail := func(err error) (pair, []byte, []byte, error) {
		return pair{}, nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fail(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return fail(err)
	}
	if by == nil {
		by = &pair{template, p.key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &p.key.PublicKey, by.key)
	if err != nil {
		return fail(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return fail(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return fail(err)
	}
	encode := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	return p, encode("CERTIFICATE", der), encode("PRIVATE KEY", key), nil
}
