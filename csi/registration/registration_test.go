package registration_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/sidemount/sidemount/csi/endpoint"
	"github.com/sidemount/sidemount/csi/registration"
)

const driver = "csi.sidemount.io"

// kubelet is what a kubelet does with a plugin's socket.
type kubelet struct {
	t      *testing.T
	dir    string
	socket string
}

// ask waits for the socket and sends the verdict, as a kubelet that has just started.
func (k kubelet) ask(verdict *api.RegistrationStatus) *api.PluginInfo {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 20*time.Second)
	defer cancel()
	k.await(ctx)
	conn, err := grpc.NewClient("unix://"+k.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close()
	client := api.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &api.InfoRequest{})
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := client.NotifyRegistrationStatus(ctx, verdict); err != nil {
		k.t.Fatal(err)
	}
	return info
}

// await returns when the socket is there.
func (k kubelet) await(ctx context.Context) {
	k.t.Helper()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		k.t.Fatal(err)
	}
	defer watcher.Close()
	if err := os.MkdirAll(k.dir, 0o750); err != nil {
		k.t.Fatal(err)
	}
	if err := watcher.Add(k.dir); err != nil {
		k.t.Fatal(err)
	}
	for {
		if _, err := os.Lstat(k.socket); err == nil {
			return
		}
		select {
		case <-watcher.Events:
		case <-ctx.Done():
			k.t.Fatal("the socket does not come")
		}
	}
}

// run starts a registration; the function returned ends it.
func run(t *testing.T, log *bytes.Buffer) (kubelet, *registration.Registration, func() error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "plugins_registry")
	r := make1(t, dir, log)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return kubelet{t: t, dir: dir, socket: filepath.Join(dir, driver+"-reg.sock")}, r, stop
}

func make1(t *testing.T, dir string, log *bytes.Buffer) *registration.Registration {
	t.Helper()
	logger := logrus.New()
	logger.SetOutput(log)
	r, err := registration.New(registration.Options{
		Directory: dir, Driver: driver, Endpoint: "/var/lib/kubelet/plugins/" + driver + "/csi.sock", Log: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheKubeletLearnsNameAndEndpoint(t *testing.T) {
	k, r, stop := run(t, &bytes.Buffer{})
	if err := r.Check(t.Context()); err == nil {
		t.Error("registered before the kubelet has asked")
	}
	info := k.ask(&api.RegistrationStatus{PluginRegistered: true})
	if info.Type != api.CSIPlugin || info.Name != driver || info.Endpoint != "/var/lib/kubelet/plugins/"+driver+"/csi.sock" ||
		len(info.SupportedVersions) != 1 || info.SupportedVersions[0] != "1.0.0" {
		t.Errorf("got %v", info)
	}
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("after the registration: %v", err)
	}
	if info, err := os.Stat(k.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(k.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestARemovedSocketIsMadeAgain(t *testing.T) {
	k, _, _ := run(t, &bytes.Buffer{})
	for range 3 {
		k.ask(&api.RegistrationStatus{PluginRegistered: true})
		if err := os.Remove(k.socket); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(k.dir); err != nil {
		t.Fatal(err)
	}
	k.ask(&api.RegistrationStatus{PluginRegistered: true})
}

func TestARefusalIsSaidOnceAndCanBeMended(t *testing.T) {
	log := &bytes.Buffer{}
	k, r, stop := run(t, log)
	for range 3 {
		k.ask(&api.RegistrationStatus{Error: "Another driver with the same name is already registered"})
	}
	if err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "Another driver with the same name") {
		t.Errorf("got %v", err)
	}
	k.ask(&api.RegistrationStatus{PluginRegistered: true})
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "driver not registered"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log)
	}
}

func TestASecondDriverOfTheNameIsRefused(t *testing.T) {
	k, _, _ := run(t, &bytes.Buffer{})
	k.ask(&api.RegistrationStatus{PluginRegistered: true})
	err := make1(t, k.dir, &bytes.Buffer{}).Run(t.Context())
	if !errors.Is(err, endpoint.ErrInUse) || !strings.Contains(err.Error(), driver) {
		t.Errorf("got %v", err)
	}
	k.ask(&api.RegistrationStatus{PluginRegistered: true})
}

func TestADeadSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, driver+"-reg.sock")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	r := make1(t, dir, &bytes.Buffer{})
	go func() { ended <- r.Run(ctx) }()
	k := kubelet{t: t, dir: dir, socket: filepath.Join(dir, driver+"-reg.sock")}
	k.ask(&api.RegistrationStatus{PluginRegistered: true})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]registration.Options{
		"no directory":       {Driver: driver, Endpoint: "/csi.sock"},
		"relative endpoint":  {Directory: "/r", Driver: driver, Endpoint: "csi.sock"},
		"no name":            {Directory: "/r", Endpoint: "/csi.sock"},
		"relative directory": {Directory: "r", Driver: driver, Endpoint: "/csi.sock"},
	} {
		if _, err := registration.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
