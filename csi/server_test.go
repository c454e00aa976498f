package csi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/csi/endpoint"
	"github.com/sidemount/sidemount/mount"
)

// buffer is a log that several goroutines may write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// running is a server under test with a client.
type running struct {
	conn   *grpc.ClientConn
	log    *buffer
	socket string
	stop   func() error
}

// run starts a server and waits until its socket answers.
func run(t *testing.T, o Options) *running {
	t.Helper()
	r := &running{log: &buffer{}}
	if o.Endpoint == "" {
		o.Endpoint = "unix://" + filepath.Join(t.TempDir(), "plugin", "csi.sock")
	}
	r.socket = strings.TrimPrefix(o.Endpoint, "unix://")
	o.Version = "v0.1.0"
	logger := logrus.New()
	logger.SetOutput(r.log)
	logger.SetLevel(logrus.DebugLevel)
	o.Log = logger
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r.conn, err = grpc.NewClient("unix://"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	probe(t, r.conn)
	return r
}

func probe(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := spec.NewIdentityClient(conn).GetPluginInfo(ctx, &spec.GetPluginInfoRequest{}); err != nil {
		t.Fatal(err)
	}
}

// services answers node and controller calls as a test wants.
type services struct {
	spec.UnimplementedNodeServer
	spec.UnimplementedControllerServer
	publish func(context.Context) error
}

func (s *services) NodePublishVolume(ctx context.Context, _ *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	return &spec.NodePublishVolumeResponse{}, s.publish(ctx)
}

func TestIdentity(t *testing.T) {
	r := run(t, Options{Name: "csi.juicefs.com"})
	client := spec.NewIdentityClient(r.conn)
	info, err := client.GetPluginInfo(t.Context(), &spec.GetPluginInfoRequest{})
	if err != nil || info.Name != "csi.juicefs.com" || info.VendorVersion != "v0.1.0" {
		t.Errorf("got %v, %v", info, err)
	}
	capabilities, err := client.GetPluginCapabilities(t.Context(), &spec.GetPluginCapabilitiesRequest{})
	if err != nil || len(capabilities.Capabilities) != 0 {
		t.Errorf("got %v, %v: more than there is", capabilities, err)
	}
	if p, err := client.Probe(t.Context(), &spec.ProbeRequest{}); err != nil || !p.Ready.GetValue() {
		t.Errorf("got %v, %v", p, err)
	}
	if _, err := spec.NewNodeClient(r.conn).NodeGetInfo(t.Context(), &spec.NodeGetInfoRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("node service: got %v", err)
	}
}

func TestControllerIsAdvertisedWhenItIsThere(t *testing.T) {
	r := run(t, Options{Controller: &services{}})
	c, err := spec.NewIdentityClient(r.conn).GetPluginCapabilities(t.Context(), &spec.GetPluginCapabilitiesRequest{})
	if err != nil || len(c.Capabilities) != 1 || c.Capabilities[0].GetService().GetType() != spec.PluginCapability_Service_CONTROLLER_SERVICE {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error
		ready bool
		code  codes.Code
	}{
		{"not yet", fmt.Errorf("broker: %w", mount.ErrUnavailable), false, codes.OK},
		{"broken", errors.New("no /dev/fuse"), false, codes.FailedPrecondition},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, Options{Ready: func(context.Context) error { return tc.err }})
			p, err := spec.NewIdentityClient(r.conn).Probe(t.Context(), &spec.ProbeRequest{})
			if status.Code(err) != tc.code || p.GetReady().GetValue() != tc.ready {
				t.Errorf("got %v, %v", p, err)
			}
		})
	}
}

func TestErrorsGetTheirCodes(t *testing.T) {
	for err, want := range map[error]codes.Code{
		nil: codes.OK,
		fmt.Errorf("open: %w", mount.ErrNotFound):                            codes.NotFound,
		fmt.Errorf("open: %w", mount.ErrClosed):                              codes.FailedPrecondition,
		fmt.Errorf("open: %w", mount.ErrRefused):                             codes.PermissionDenied,
		fmt.Errorf("open: %w", mount.ErrConfig):                              codes.InvalidArgument,
		fmt.Errorf("open: %w", mount.ErrUnavailable):                         codes.Unavailable,
		fmt.Errorf("%w: %w", mount.ErrUnavailable, context.Canceled):         codes.Canceled,
		context.DeadlineExceeded:                                             codes.DeadlineExceeded,
		errors.New("disk on fire"):                                           codes.Internal,
		status.Error(codes.Aborted, "busy"):                                  codes.Aborted,
		fmt.Errorf("publish: %w", status.Error(codes.OutOfRange, "too big")): codes.OutOfRange,
	} {
		if got := status.Code(translate(err)); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	r := run(t, Options{Node: &services{publish: func(context.Context) error { return mount.ErrConfig }}})
	_, err := spec.NewNodeClient(r.conn).NodePublishVolume(t.Context(), &spec.NodePublishVolumeRequest{
		VolumeId: "vol-7", Secrets: map[string]string{"metaurl": "redis://:hunter2@h/1"}, VolumeContext: map[string]string{"subPath": "a"},
		VolumeCapability: &spec.VolumeCapability{AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{MountFlags: []string{"ro"}}}},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	log := r.log.String()
	if strings.Contains(log, "hunter2") || strings.Contains(log, "metaurl") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
	for _, want := range []string{"vol-7", "subPath", "NodePublishVolume", "InvalidArgument"} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in the log:\n%s", want, log)
		}
	}
}

func TestRedactLeavesTheRequestAlone(t *testing.T) {
	request := &spec.NodeStageVolumeRequest{VolumeId: "v", Secrets: map[string]string{"k": "hunter2"}}
	if text := (redacted{request}).String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "volume_id") {
		t.Errorf("got %s", text)
	}
	if request.Secrets["k"] != "hunter2" {
		t.Error("the request has lost its secret")
	}
	if text := (redacted{"hunter2"}).String(); strings.Contains(text, "hunter2") {
		t.Errorf("what is no message is printed: %s", text)
	}
}

func TestPanicIsAnErrorAndTheServerGoesOn(t *testing.T) {
	r := run(t, Options{Node: &services{publish: func(context.Context) error { panic("hunter2") }}})
	_, err := spec.NewNodeClient(r.conn).NodePublishVolume(t.Context(), &spec.NodePublishVolumeRequest{})
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
	if log := r.log.String(); strings.Contains(log, "hunter2") || !strings.Contains(log, "server_test.go") {
		t.Errorf("the log shows the value or not the place:\n%s", log)
	}
	probe(t, r.conn)
}

func TestSocket(t *testing.T) {
	r := run(t, Options{})
	info, err := os.Stat(r.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %v, %v", info, err)
	}
	second, err := New(Options{Endpoint: r.socket, Version: "v"})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, endpoint.ErrInUse) {
		t.Errorf("a second server on the socket: %v", err)
	}
	probe(t, r.conn)
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := os.Lstat(r.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestDeadSocketIsReplaced(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, Options{Endpoint: socket})
}

func TestForeignFileIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "csi.sock")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Endpoint: file, Version: "v"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestCallsUnderWayEndWithTheGrace(t *testing.T) {
	entered := make(chan struct{})
	r := run(t, Options{Grace: 50 * time.Millisecond, Node: &services{publish: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}})
	failed := make(chan error, 1)
	go func() {
		_, err := spec.NewNodeClient(r.conn).NodePublishVolume(context.Background(), &spec.NodePublishVolumeRequest{}, grpc.WaitForReady(false))
		failed <- err
	}()
	<-entered
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	select {
	case err := <-failed:
		if err == nil {
			t.Error("the call has succeeded")
		}
	case <-time.After(20 * time.Second):
		t.Error("the call hangs")
	}
}

func TestNew(t *testing.T) {
	for name, o := range map[string]Options{
		"no endpoint":       {Version: "v"},
		"relative endpoint": {Endpoint: "csi.sock", Version: "v"},
		"tcp endpoint":      {Endpoint: "tcp://0.0.0.0:1", Version: "v"},
		"no version":        {Endpoint: "/x/csi.sock"},
		"bad name":          {Endpoint: "/x/csi.sock", Version: "v", Name: "-csi"},
		"long name":         {Endpoint: "/x/csi.sock", Version: "v", Name: strings.Repeat("a", 64)},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
