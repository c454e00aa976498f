package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
)

const (
	// DefaultName is the driver's name.
	DefaultName = "csi.sidemount.io"
	// maxName is the longest name of a driver (CSI specification, GetPluginInfo).
	maxName = 63
	// dialTimeout bounds the question whether somebody listens on a socket that is there already.
	dialTimeout = time.Second
)

// driverName is domain name notation (CSI specification, GetPluginInfo).
var driverName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)

// Options configure a Server.
type Options struct {
	// Endpoint is the socket: an absolute path or "unix://" and one. Required. Its directory is made if it is missing.
	Endpoint string
	// Name is the driver's name. Default: csi.sidemount.io.
	Name string
	// Version is the driver's version. Required.
	Version string
	// Controller and Node are the services besides identity; nil means that they are not offered.
	Controller spec.ControllerServer
	Node       spec.NodeServer
	// Ready tells whether the driver can serve. An error that wraps mount.ErrUnavailable means "not yet", any other "never
	// without a restart". nil means always ready.
	Ready func(context.Context) error
	// Grace is how long calls under way may go on when the server ends. Default 10 s.
	Grace time.Duration
	// Log is where calls are logged. Default: the standard logger.
	Log logrus.FieldLogger
}

// Server serves the CSI calls on a unix socket.
type Server struct {
	options Options
	socket  string
}

// New checks the options and returns a Server.
func New(o Options) (*Server, error) {
	socket := strings.TrimPrefix(o.Endpoint, "unix://")
	if !filepath.IsAbs(socket) {
		return nil, fmt.Errorf("endpoint %q is not an absolute path or unix:// and one", o.Endpoint)
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if len(o.Name) > maxName || !driverName.MatchString(o.Name) {
		return nil, fmt.Errorf("driver name %q is not a domain name of at most %d characters", o.Name, maxName)
	}
	if o.Version == "" {
		return nil, errors.New("driver version is empty")
	}
	if o.Ready == nil {
		o.Ready = func(context.Context) error { return nil }
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	return &Server{options: o, socket: socket}, nil
}

// Run serves until ctx ends. It then lets calls under way finish, for the grace time at most, and removes the socket. The
// error is ErrInUse if another driver already serves there.
func (s *Server) Run(ctx context.Context) error {
	listener, err := s.listen(ctx)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.socket, err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(interceptor(s.options.Log)))
	spec.RegisterIdentityServer(server, &identity{
		name: s.options.Name, version: s.options.Version, controller: s.options.Controller != nil, ready: s.options.Ready,
	})
	if s.options.Controller != nil {
		spec.RegisterControllerServer(server, s.options.Controller)
	}
	if s.options.Node != nil {
		spec.RegisterNodeServer(server, s.options.Node)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.socket, err)
	case <-ctx.Done():
	}
	s.stop(server)
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", s.socket, err)
	}
	return nil
}

// stop ends the server, with force after the grace time.
func (s *Server) stop(server *grpc.Server) {
	stopped := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(stopped)
	}()
	timer := time.NewTimer(s.options.Grace)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		s.options.Log.Warn("calls under way are cut off")
		server.Stop()
		<-stopped
	}
}

// listen makes the socket. One that a dead driver has left is replaced; a living driver and any other file are left alone.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(s.socket), 0o750); err != nil {
		return nil, err
	}
	if err := s.clear(ctx); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", s.socket)
	if err != nil {
		return nil, err
	}
	// Requests carry secrets, and who can connect can mount: only root may.
	if err := os.Chmod(s.socket, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

func (s *Server) clear(ctx context.Context) error {
	info, err := os.Lstat(s.socket)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is not a socket", s.socket)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if conn, err := new(net.Dialer).DialContext(ctx, "unix", s.socket); err == nil {
		return errors.Join(ErrInUse, conn.Close())
	}
	return os.Remove(s.socket)
}
