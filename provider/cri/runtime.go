package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NodeLabel is the label of every sandbox and container that belongs to a node of ours; its value is the node's name.
const NodeLabel = "sidemount.io/node"

const (
	// DefaultTimeout is how long a call may take, the kubelet's runtimeRequestTimeout.
	DefaultTimeout = 2 * time.Minute
	// DefaultPullTimeout is how long a pull may take.
	DefaultPullTimeout = 30 * time.Minute
)

// maxMessage is how large an answer may be, in bytes; a list of all containers of a busy node exceeds gRPC's 4 MiB.
const maxMessage = 16 << 20

// Options of a Runtime.
type Options struct {
	// Endpoint is the runtime's socket, "unix:///run/containerd/containerd.sock" or an absolute path. It is required.
	Endpoint string
	// ImageEndpoint is the socket of the image service; by default it is Endpoint.
	ImageEndpoint string
	// Node is the node's name. The Runtime sees only sandboxes whose label NodeLabel has this value. It is required.
	Node string
	// Timeout bounds each call except pulls and commands that run in containers; by default DefaultTimeout. Running a sandbox
	// may take twice as long, stopping a container its grace period longer.
	Timeout time.Duration
	// PullTimeout bounds a pull, because a registry that hangs would otherwise hold a pod for ever; by default
	// DefaultPullTimeout.
	PullTimeout time.Duration
}

// Runtime runs containers on a CRI endpoint. Its methods may be called concurrently.
type Runtime struct {
	opts      Options
	conns     []*grpc.ClientConn
	client    runtimeapi.RuntimeServiceClient
	images    runtimeapi.ImageServiceClient
	closeOnce sync.Once
	closeErr  error
}

// New returns a Runtime. It does not connect: the first call does, and every call after a lost connection does again.
func New(opts Options) (*Runtime, error) {
	if opts.Node == "" {
		return nil, errors.New("node name is required")
	}
	if opts.ImageEndpoint == "" {
		opts.ImageEndpoint = opts.Endpoint
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.PullTimeout <= 0 {
		opts.PullTimeout = DefaultPullTimeout
	}
	r := &Runtime{opts: opts}
	conn, err := r.dial(opts.Endpoint)
	if err != nil {
		return nil, err
	}
	r.client = runtimeapi.NewRuntimeServiceClient(conn)
	if opts.ImageEndpoint != opts.Endpoint {
		if conn, err = r.dial(opts.ImageEndpoint); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	r.images = runtimeapi.NewImageServiceClient(conn)
	return r, nil
}

func (r *Runtime) dial(endpoint string) (*grpc.ClientConn, error) {
	path, err := socketPath(endpoint)
	if err != nil {
		return nil, err
	}
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	conn, err := grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(dialer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	r.conns = append(r.conns, conn)
	return conn, nil
}

// socketPath returns the path of a unix socket given as a URL or as a path.
func socketPath(endpoint string) (string, error) {
	if filepath.IsAbs(endpoint) {
		return endpoint, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "unix" || !filepath.IsAbs(u.Path) {
		return "", fmt.Errorf("runtime endpoint %q is not of the form unix:///path", endpoint)
	}
	return u.Path, nil
}

// Connect waits until the runtime answers, or ctx ends, and checks that it speaks version 1 of the interface.
func (r *Runtime) Connect(ctx context.Context) error {
	_, err := r.client.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return wrap(err, "connect to %s", r.opts.Endpoint)
	}
	_, err = r.images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{}, grpc.WaitForReady(true))
	return wrap(err, "connect to %s", r.opts.ImageEndpoint)
}

// Close ends the connections; calls under way return ErrUnavailable or a cancellation.
func (r *Runtime) Close() error {
	r.closeOnce.Do(func() {
		var errs []error
		for _, c := range r.conns {
			errs = append(errs, c.Close())
		}
		r.closeErr = errors.Join(errs...)
	})
	return r.closeErr
}

func (r *Runtime) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.opts.Timeout)
}
