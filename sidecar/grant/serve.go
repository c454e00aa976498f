package grant

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// Granter decides. It returns a result for each volume, or an error about the request as a whole, whose text the pod gets to see.
type Granter interface {
	Grant(ctx context.Context, r Request) ([]Result, error)
}

// exchange bounds a connection from its handshake on.
const exchange = 20 * time.Second

// Serve answers the one request of a connection whose handshake is done, and closes it. The error is for the server's log.
func Serve(ctx context.Context, conn net.Conn, g Granter) error {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var request Request
	if err := read(conn, &request, maxRequest); err != nil {
		return err
	}
	reply := Reply{}
	err := request.check()
	if err == nil {
		reply.Results, err = g.Grant(ctx, request)
	}
	if err != nil {
		reply = Reply{Error: Fail(err)}
	} else if err := reply.check(len(request.Volumes)); err != nil {
		return err
	}
	if writeErr := write(conn, reply, maxReply); writeErr != nil {
		return errors.Join(err, fmt.Errorf("answer a request: %w", writeErr))
	}
	return err
}

// Fail is an error as it goes to the pod.
func Fail(err error) *Failure {
	return &Failure{Message: err.Error(), Transient: errors.Is(err, mount.ErrUnavailable)}
}
