package csi

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/sidemount/sidemount/csi/endpoint"
)

const (
	// DefaultName is the driver's name.
	DefaultName = "csi.sidemount.io"
	// maxName is the longest name of a driver (CSI specification, GetPluginInfo).
	maxName = 63
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
	// Observe is told of every call: its method, its gRPC code and how long it took. nil: nobody is told.
	Observe func(method, code string, took time.Duration)
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
	socket, err := endpoint.Path(o.Endpoint)
	if err != nil {
		return nil, err
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
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
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
// error is endpoint.ErrInUse if another driver already serves there.
func (s *Server) Run(ctx context.Context) error {
	listener, err := endpoint.Listen(ctx, s.socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.socket, err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(interceptor(s.options.Log, s.options.Observe)))
	spec.RegisterIdentityServer(server, &identity{
		name: s.options.Name, version: s.options.Version, controller: s.options.Controller != nil, ready: s.options.Ready,
	})
	if s.options.Controller != nil {
		spec.RegisterControllerServer(server, s.options.Controller)
	}
	if s.options.Node != nil {
		spec.RegisterNodeServer(server, s.options.Node)
	}
	if err := endpoint.Serve(ctx, server, listener, s.options.Grace); err != nil {
		return fmt.Errorf("serve %s: %w", s.socket, err)
	}
	return nil
}
