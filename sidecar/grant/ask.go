package grant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Options of a Client; all are required.
type Options struct {
	// Servers are addresses, host:port; the first that answers is asked.
	Servers []string
	// ServerName is the name in the server's certificate.
	ServerName string
	// CA are the authorities of that certificate, in PEM.
	CA []byte
	// TokenFile has the pod's token; it is read for every request, because it is renewed.
	TokenFile string
}

// Client asks a server for volumes.
type Client struct {
	o      Options
	config *tls.Config
}

// dialTimeout bounds one address, so that an address that swallows packets does not keep from trying the next.
const dialTimeout = 5 * time.Second

// New checks the options.
func New(o Options) (*Client, error) {
	if len(o.Servers) == 0 || o.ServerName == "" || o.TokenFile == "" {
		return nil, errors.New("the service's address, its name and the token's file must be given")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(o.CA) {
		return nil, errors.New("the service's authorities are no certificates in PEM")
	}
	return &Client{o: o, config: &tls.Config{
		RootCAs: roots, ServerName: o.ServerName, NextProtos: []string{Protocol}, MinVersion: tls.VersionTLS13,
	}}, nil
}

// Ask returns a result for each volume. The error wraps mount.ErrConfig if the server refuses the pod as a whole.
func (c *Client) Ask(ctx context.Context, volumes []string) ([]Result, error) {
	token, err := os.ReadFile(c.o.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the pod's token: %w", err)
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := Request{Token: strings.TrimSpace(string(token)), Volumes: volumes}
	if err := request.check(); err != nil {
		return nil, err
	}
	if err := write(conn, request, maxRequest); err != nil {
		return nil, fmt.Errorf("ask for volumes: %w", err)
	}
	var reply Reply
	if err := read(conn, &reply, maxReply); err != nil {
		return nil, fmt.Errorf("ask for volumes: %w", err)
	}
	if err := reply.check(len(volumes)); err != nil {
		return nil, err
	}
	if reply.Error != nil {
		return nil, fmt.Errorf("ask for volumes: %w", reply.Error)
	}
	return reply.Results, nil
}

// dial connects to the first server that answers.
func (c *Client) dial(ctx context.Context) (*tls.Conn, error) {
	var all []error
	for _, server := range c.o.Servers {
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: c.config}
		within, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := dialer.DialContext(within, "tcp", server)
		cancel()
		if err != nil {
			all = append(all, fmt.Errorf("connect to %s: %w", server, err))
			continue
		}
		secure := conn.(*tls.Conn)
		if secure.ConnectionState().NegotiatedProtocol != Protocol {
			_ = secure.Close()
			all = append(all, fmt.Errorf("connect to %s: it does not speak %s", server, Protocol))
			continue
		}
		return secure, nil
	}
	return nil, errors.Join(all...)
}
