package probe

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// connect opens a connection and closes it; that it could be opened is success.
func connect(ctx context.Context, action *corev1.TCPSocketAction, t Target, timeout time.Duration) (Result, string, error) {
	port, err := Port(action.Port, t.Container)
	if err != nil {
		return Failure, "", err
	}
	host := action.Host
	if host == "" {
		host = t.Host
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dialer().DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return Failure, err.Error(), nil
	}
	conn.Close()
	return Success, "", nil
}

// dialer returns a dialer whose connections linger for at most a second after they are closed: probes open many, and each would
// otherwise hold a port for a minute.
func dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1})
		})
		if err != nil {
			return err
		}
		return set
	}}
}
