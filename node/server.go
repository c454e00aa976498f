package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// ServerOptions of a Server. Interfaces that are nil make their routes answer 501.
type ServerOptions struct {
	// Address to listen on, host:port. Default :10250.
	Address string
	// NodeName is the object on whose subresources every request is authorized. Required.
	NodeName string
	// Certificates give the serving certificate. Required.
	Certificates Certificates
	// Auth identifies and authorizes. Required.
	Auth Auth
	// Pods, Logs, Streams, Runner and Stats are what is served.
	Pods    Pods
	Logs    Logs
	Streams Streams
	Runner  Runner
	Stats   Stats
	// Metrics is served at /metrics, ProbeMetrics at /metrics/probes.
	Metrics, ProbeMetrics prometheus.Gatherer
	// Config is served as JSON at /configz under the key kubeletconfig; it must hold no secret.
	Config any
	// Checks are run by /healthz.
	Checks []HealthCheck
	// StreamTimeout bounds a followed log, and the silence of an exec, attach or port-forward stream. Default 4 h, as the
	// kubelet's.
	StreamTimeout time.Duration
	// ShutdownTimeout is how long requests may go on after the end of Run's context. Streams are cut at once after it.
	// Default 2 s.
	ShutdownTimeout time.Duration
}

// Server is the kubelet's HTTPS API.
type Server struct {
	options ServerOptions
	handler http.Handler
}

// NewServer checks the options; errors wrap ErrInvalid.
func NewServer(o ServerOptions) (*Server, error) {
	if o.NodeName == "" || o.Certificates == nil || o.Auth.Authenticator == nil || o.Auth.Authorizer == nil {
		return nil, fmt.Errorf("%w: the https api needs a node name, a certificate, an authenticator and an authorizer", ErrInvalid)
	}
	o.Address = orDefault(o.Address, ":10250")
	o.StreamTimeout = orDefault(o.StreamTimeout, 4*time.Hour)
	o.ShutdownTimeout = orDefault(o.ShutdownTimeout, 2*time.Second)
	s := &Server{options: o}
	s.handler = s.protect(s.routes())
	return s, nil
}

// routes are the kubelet's (pkg/kubelet/server in Kubernetes). A pattern without a method is an endpoint that is refused.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, path := range []string{"/pods", "/pods/{$}"} {
		mux.HandleFunc("GET "+path, s.servePods)
	}
	for _, path := range []string{"/runningpods", "/runningpods/{$}"} {
		mux.HandleFunc("GET "+path, s.serveRunningPods)
	}
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.serveLogs)
	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.serveExec)
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", s.serveExec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.serveAttach)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", s.serveAttach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", s.servePortForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", s.servePortForward)
	}
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.serveRun)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.serveRun)
	for _, path := range []string{"/stats/{$}", "/stats/summary", "/stats/summary/{$}"} {
		mux.HandleFunc("GET "+path, s.serveSummary)
	}
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /metrics/resource", s.serveResourceMetrics)
	mux.HandleFunc("GET /metrics/probes", s.serveProbeMetrics)
	mux.HandleFunc("GET /configz", s.serveConfig)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /healthz/{check}", s.serveHealth)
	mux.HandleFunc("/logs/", refuse("logs endpoint is disabled."))
	mux.HandleFunc("/debug/", refuse("profiling endpoint is disabled."))
	return mux
}

func refuse(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, text, http.StatusMethodNotAllowed)
	}
}

// Handler serves the API without TLS: authentication and authorization are in it.
func (s *Server) Handler() http.Handler { return s.handler }

// Run listens and serves until ctx ends; it returns nil then, with every connection closed.
func (s *Server) Run(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.options.Address)
	if err != nil {
		return fmt.Errorf("listen for the https api: %w", err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Run on a listener that it closes.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tracked := newTrackedListener(listener)
	defer tracked.CloseAll()
	server := &http.Server{
		Handler:           s.handler,
		TLSConfig:         s.tlsConfig(),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       90 * time.Second,
		ReadTimeout:       s.options.StreamTimeout,
		WriteTimeout:      s.options.StreamTimeout,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          quietLog(ctx),
	}
	certificates := make(chan struct{})
	go func() {
		defer close(certificates)
		s.options.Certificates.Run(ctx)
	}()
	defer func() { cancel(); <-certificates }()

	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(tracked, "", "") }()
	log.G(ctx).WithField("address", listener.Addr().String()).Info("https api is listening")
	select {
	case err := <-served:
		return fmt.Errorf("serve the https api: %w", err)
	case <-ctx.Done():
	}
	s.shutdown(ctx, server)
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the https api: %w", err)
	}
	return nil
}

// shutdown lets short requests end; followed logs are cut when the time is over, and hijacked connections, which net/http
// no longer knows, are closed with the listener's.
func (s *Server) shutdown(ctx context.Context, server *http.Server) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		_ = server.Close()
	}
}

func (s *Server) tlsConfig() *tls.Config {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.options.Certificates.GetCertificate,
		// The certificate is verified by the authenticator, after the handshake: a caller with a token needs none.
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"},
	}
	if s.options.Auth.ClientCA == nil {
		return config
	}
	// Clients choose their certificate by the names of the authorities that the server announces; the file may change.
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		verify, ok := s.options.Auth.ClientCA.VerifyOptions()
		if !ok {
			return nil, nil
		}
		clone := config.Clone()
		clone.GetConfigForClient = nil
		clone.ClientCAs = verify.Roots
		return clone, nil
	}
	return config
}

// writeText answers as the kubelet does: the bare text.
func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	// The caller may be gone: there is nobody left to tell.
	_, _ = w.Write([]byte(text))
}
