package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Health says how to ask a component whether it is well. A process that does not run never is.
type Health struct {
	// URL answers 200; "unix:PATH" is well when it takes a connection. Empty: running is enough.
	URL string `json:"url,omitempty"`
	// Node has to be Ready besides.
	Node string `json:"node,omitempty"`
}

// prober asks components from the host, as the administrator.
type prober struct {
	client *http.Client
	server string
}

func newProber(s *State) (*prober, error) {
	cert, err := tls.LoadX509KeyPair(s.path("pki", "admin.crt"), s.path("pki", "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("load administrator's certificate: %w", err)
	}
	ca, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &prober{server: s.Server, client: &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}},
		},
	}}, nil
}

// check returns nil when the component is well.
func (p *prober) check(ctx context.Context, c Component) error {
	if !c.Alive() {
		return fmt.Errorf("does not run")
	}
	if path, ok := strings.CutPrefix(c.Health.URL, "unix:"); ok {
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err != nil {
			return err
		}
		conn.Close()
	} else if c.Health.URL != "" {
		if _, err := p.get(ctx, c.Health.URL); err != nil {
			return err
		}
	}
	if c.Health.Node != "" {
		return p.nodeReady(ctx, c.Health.Node)
	}
	return nil
}

func (p *prober) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return body, nil
}

// nodeReady returns nil when the Node object says that the node is Ready.
func (p *prober) nodeReady(ctx context.Context, name string) error {
	body, err := p.get(ctx, p.server+"/api/v1/nodes/"+name)
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(body, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", name, c.Message)
		}
	}
	return fmt.Errorf("node %s has no Ready condition", name)
}
