package cri

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ExecResult is what a command wrote and how it ended.
type ExecResult struct {
	Stdout   []byte
	Stderr   []byte
	ExitCode int
}

// StreamOptions say which streams a client attaches to. With a TTY there is no Stderr.
type StreamOptions struct {
	Stdin  bool
	Stdout bool
	Stderr bool
	TTY    bool
}

// ExecSync runs a command in a container. A command that ran is no error whatever its exit code; one that took longer than
// timeout has been killed and the error matches ErrTimeout. A timeout of 0 sets no limit but ctx; fractions of a second are
// rounded up, because the interface counts whole seconds and takes 0 for no limit.
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		// The runtime's own deadline comes first; this one is for a runtime that hangs.
		ctx, cancel = context.WithTimeout(ctx, timeout+r.opts.Timeout)
		defer cancel()
	}
	resp, err := r.client.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
		ContainerId: id, Cmd: cmd, Timeout: int64((timeout + time.Second - 1) / time.Second),
	})
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		return ExecResult{}, fmt.Errorf("%w after %s", ErrTimeout, timeout)
	}
	if err != nil {
		return ExecResult{}, wrap(err, "exec in container %s", id)
	}
	return ExecResult{Stdout: resp.Stdout, Stderr: resp.Stderr, ExitCode: int(resp.ExitCode)}, nil
}

// ExecURL returns where the runtime serves the streams of a command in a container.
func (r *Runtime) ExecURL(ctx context.Context, id string, cmd []string, o StreamOptions) (*url.URL, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: id, Cmd: cmd, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY,
	})
	return streamURL(resp.GetUrl(), wrap(err, "exec in container %s", id))
}

// AttachURL returns where the runtime serves the streams of a container's first process. TTY must be what the container was
// created with.
func (r *Runtime) AttachURL(ctx context.Context, id string, o StreamOptions) (*url.URL, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.Attach(ctx, &runtimeapi.AttachRequest{
		ContainerId: id, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY,
	})
	return streamURL(resp.GetUrl(), wrap(err, "attach to container %s", id))
}

// PortForwardURL returns where the runtime serves connections to ports of a sandbox. Ports are needed only by clients of the
// websocket protocol.
func (r *Runtime) PortForwardURL(ctx context.Context, sandboxID string, ports []int32) (*url.URL, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandboxID, Port: ports})
	return streamURL(resp.GetUrl(), wrap(err, "forward ports of sandbox %s", sandboxID))
}

func streamURL(raw string, err error) (*url.URL, error) {
	if err != nil {
		return nil, err
	}
	if raw == "" {
		return nil, errors.New("the runtime returned no address for the stream")
	}
	return url.Parse(raw)
}
