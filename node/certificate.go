package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// Certificates give the serving certificate of the HTTPS API.
type Certificates interface {
	// GetCertificate has the form that crypto/tls wants.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Run renews in the background until ctx ends.
	Run(ctx context.Context)
}

// recheck is the time after which the files of a CertificateFiles are looked at again.
const recheck = 10 * time.Second

// CertificateFiles serves a certificate from two PEM files and follows their changes without a restart. Files that cannot
// be used leave the last good pair in service.
type CertificateFiles struct {
	cert, key string

	// mu guards what follows.
	mu      sync.Mutex
	current *tls.Certificate
	state   [2]fileState
	checked time.Time
}

type fileState struct {
	modified time.Time
	size     int64
}

var _ Certificates = (*CertificateFiles)(nil)

// NewCertificateFiles reads the pair once, so that a wrong path is an error at the start.
func NewCertificateFiles(cert, key string) (*CertificateFiles, error) {
	c := &CertificateFiles{cert: cert, key: key}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// GetCertificate implements Certificates.
func (c *CertificateFiles) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) >= recheck {
		if err := c.reload(); err != nil {
			log.G(hello.Context()).WithError(err).Warn("serving certificate not reloaded, the old one stays")
		}
	}
	return c.current, nil
}

// Run implements Certificates; the files are looked at when a caller comes.
func (c *CertificateFiles) Run(ctx context.Context) { <-ctx.Done() }

// reload reads the pair if a file has changed. A pair that does not fit, as while it is being replaced, is tried again at
// the next check.
func (c *CertificateFiles) reload() error {
	c.checked = time.Now()
	var state [2]fileState
	for i, path := range []string{c.cert, c.key} {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("read serving certificate: %w", err)
		}
		state[i] = fileState{info.ModTime(), info.Size()}
	}
	if c.current != nil && state == c.state {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("read serving certificate: %w", err)
	}
	c.current, c.state = &pair, state
	return nil
}
