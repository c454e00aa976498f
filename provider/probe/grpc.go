package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
)

// health asks by the gRPC health checking protocol; SERVING is success.
func health(ctx context.Context, action *corev1.GRPCAction, t Target, timeout time.Duration) (Result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	address := net.JoinHostPort(t.Host, strconv.Itoa(int(action.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/1.36"),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer().DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return Failure, "", fmt.Errorf("%w: %w", ErrHandler, err)
	}
	defer func() { _ = conn.Close() }()
	var service string
	if action.Service != nil {
		service = *action.Service
	}
	res, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.OK:
	case codes.DeadlineExceeded:
		return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", address, timeout, status.Convert(err).Message()), nil
	case codes.Unimplemented:
		return Failure, fmt.Sprintf("this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message()), nil
	default:
		return Failure, fmt.Sprintf("service probe failed: %s", status.Convert(err).Message()), nil
	}
	if res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", res.GetStatus()), nil
	}
	return Success, "service healthy", nil
}
