package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// client asks a worker.
type client struct{ http *http.Client }

var _ Service = (*client)(nil)

// NewClient asks the worker that listens on a unix socket. Nothing is connected yet; a worker that does not answer is
// mount.ErrUnavailable at each call.
func NewClient(socket string) Service {
	return NewClientOf(func(ctx context.Context) (net.Conn, error) { return dial(ctx, socket) })
}

// NewClientOf asks the worker that dial connects to.
func NewClientOf(dial func(context.Context) (net.Conn, error)) Service {
	return &client{http: &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}}}
}

// dial reaches the socket through its directory as a file, because a socket address has at most 108 bytes.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	dir, err := os.OpenFile(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", inside(dir, filepath.Base(socket)))
}

// call sends one command and reads its answer.
func call[Out any](ctx context.Context, c *client, name string, in any) (out Out, err error) {
	ctx, cancel := context.WithTimeout(ctx, MaxDuration)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("command %s: %w", name, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://worker/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return out, fmt.Errorf("command %s: %w", name, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		// A little less than what we wait, so that the worker's own words arrive.
		left := time.Until(deadline)
		r.Header.Set(deadlineHeader, strconv.FormatInt(max(1, (left-left/20).Milliseconds()), 10))
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.http.Do(r)
	if err != nil {
		return out, unreachable(ctx, name, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, MaxBody))
	if err != nil {
		return out, unreachable(ctx, name, err)
	}
	if answer.StatusCode != http.StatusOK {
		var f failure
		if json.Unmarshal(text, &f) != nil || f.Message == "" {
			return out, fmt.Errorf("command %s: the worker answers with HTTP status %d", name, answer.StatusCode)
		}
		return out, f.error()
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("command %s: the worker's answer is not JSON", name)
	}
	return out, nil
}

// unreachable tells our own deadline from a worker that is not there.
func unreachable(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("command %s: %w", name, ctx.Err())
	}
	var inner *net.OpError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return fmt.Errorf("%w: command %s: the worker does not answer: %w", mount.ErrUnavailable, name, err)
}

func (c *client) CreateVolume(ctx context.Context, in CreateVolume) (Volume, error) {
	return call[Volume](ctx, c, "CreateVolume", in)
}

func (c *client) DeleteVolume(ctx context.Context, in DeleteVolume) error {
	_, err := call[nothing](ctx, c, "DeleteVolume", in)
	return err
}

func (c *client) Volume(ctx context.Context, in VolumeQuery) (Volume, error) {
	return call[Volume](ctx, c, "Volume", in)
}

func (c *client) ExpandVolume(ctx context.Context, in ExpandVolume) (Volume, error) {
	return call[Volume](ctx, c, "ExpandVolume", in)
}

func (c *client) CreateSnapshot(ctx context.Context, in CreateSnapshot) (Snapshot, error) {
	return call[Snapshot](ctx, c, "CreateSnapshot", in)
}

func (c *client) DeleteSnapshot(ctx context.Context, in DeleteSnapshot) error {
	_, err := call[nothing](ctx, c, "DeleteSnapshot", in)
	return err
}

func (c *client) Snapshots(ctx context.Context, in SnapshotsQuery) ([]Snapshot, error) {
	return call[[]Snapshot](ctx, c, "Snapshots", in)
}

func (c *client) Capacity(ctx context.Context, in CapacityQuery) (Capacity, error) {
	return call[Capacity](ctx, c, "Capacity", in)
}
