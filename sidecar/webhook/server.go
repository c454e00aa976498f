package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"

	"github.com/sidemount/sidemount/sidecar/grant"
)

const (
	// reviewTimeout bounds a review; the API server waits for 30 s at most.
	reviewTimeout = 30 * time.Second
	// farewell is how long reviews under way may take when the server ends.
	farewell = 10 * time.Second
	// parallelGrants bounds how many pods are served at a time; the others are hung up on and ask again.
	parallelGrants = 64
)

// Server serves reviews and grants on one port: what a connection is for is negotiated in its handshake.
type Server struct {
	// Address to listen on, host:port.
	Address string
	// Certificate is the serving certificate of the moment.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Reviews serves the API server.
	Reviews http.Handler
	// Grants serves the brokers of pods.
	Grants grant.Granter
}

// Run serves until ctx ends; what is under way is finished then.
func (s *Server) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listen for reviews: %w", err)
	}
	return s.serve(ctx, listener)
}

func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	var granting sync.WaitGroup
	defer granting.Wait()
	// Without cancellation: what is under way has a deadline of its own.
	calm := context.WithoutCancel(ctx)
	room := make(chan struct{}, parallelGrants)
	server := &http.Server{
		Handler: s.Reviews,
		TLSConfig: &tls.Config{
			GetCertificate: s.Certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{grant.Protocol, "http/1.1"},
		},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			grant.Protocol: func(_ *http.Server, conn *tls.Conn, _ http.Handler) {
				granting.Add(1)
				defer granting.Done()
				select {
				case room <- struct{}{}:
					defer func() { <-room }()
				default:
					return
				}
				if err := grant.Serve(calm, conn, s.Grants); err != nil {
					log.G(ctx).WithError(err).WithField("peer", conn.RemoteAddr().String()).Warn("volumes not granted")
				}
			},
		},
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: reviewTimeout, WriteTimeout: reviewTimeout, IdleTimeout: 2 * time.Minute,
		ErrorLog:    stdlog.New(complaints{log.G(ctx)}, "", 0),
		BaseContext: func(net.Listener) context.Context { return calm },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve reviews: %w", err)
	case <-ctx.Done():
	}
	within, cancel := context.WithTimeout(calm, farewell)
	defer cancel()
	err := server.Shutdown(within)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	if end := <-ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
