package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/client-go/tools/record"
	pluginregistration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/registration"
	"github.com/sidemount/sidemount/mount"
)

// csiNodeFlags returns the options that a command line gives.
func csiNodeFlags(t *testing.T, args ...string) *csiNodeOptions {
	t.Helper()
	o := &csiNodeOptions{}
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	o.addTo(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCSINodeFindsItsPlaceAtTheKubelet(t *testing.T) {
	o := csiNodeFlags(t, "--namespace=storage", "--kubelet-dir=/data/kubelet", "--driver-name=csi.juicefs.com", "--node-name=n1", "--agent-path=/a")
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		o.endpoint:        "/data/kubelet/plugins/csi.juicefs.com/csi.sock",
		o.registeredPath:  "/data/kubelet/plugins/csi.juicefs.com/csi.sock",
		o.registrationDir: "/data/kubelet/plugins_registry",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	o = csiNodeFlags(t, "--namespace=storage", "--endpoint=unix:///csi/csi.sock", "--node-name=n1", "--agent-path=/a")
	if err := o.complete(); err != nil || o.registeredPath != "/csi/csi.sock" {
		t.Errorf("got %s, %v", o.registeredPath, err)
	}
}

func TestCSINodeNamesTheWrongFlag(t *testing.T) {
	for flag, args := range map[string][]string{
		"--namespace":   nil,
		"--kubelet-dir": {"--namespace=s", "--kubelet-dir=kubelet"},
		"--state-dir":   {"--namespace=s", "--state-dir=state"},
		"--endpoint":    {"--namespace=s", "--endpoint=tcp://1.2.3.4:5"},
	} {
		if err := csiNodeFlags(t, args...).complete(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}

func TestTwoDriversShareNoState(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); err == nil || !strings.Contains(err.Error(), "another driver") {
		t.Errorf("got %v", err)
	}
	unlock()
	unlock, err = lockState(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	unlock()
}

func TestCSINodeIsReadyWhenTheKubeletHasRegisteredIt(t *testing.T) {
	dir := t.TempDir()
	keeper, err := mountpod.New(mountpod.Options{
		Broker: noSessions{}, Pods: noPods{}, Driver: csi.DefaultName, NodeName: "n1", Namespace: "s", StateDir: filepath.Join(dir, "state"),
		MountsDir: filepath.Join(dir, "mounts"), AgentDir: dir, Recorder: record.NewFakeRecorder(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &csiNode{keeper: keeper}
	if n.registration, err = registration.New(registration.Options{Directory: dir, Driver: csi.DefaultName, Endpoint: filepath.Join(dir, "csi.sock")}); err != nil {
		t.Fatal(err)
	}
	handler := metricsServer{gatherer: prometheus.NewRegistry(), readiness: n.readiness()}.handler()
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	expect := func(path string, code int, words string) {
		t.Helper()
		if got, text := ask(path); got != code || !strings.Contains(text, words) {
			t.Errorf("%s: got %d %q, want %d with %q", path, got, text, code, words)
		}
	}
	expect("/healthz", http.StatusOK, "ok")
	expect("/readyz", http.StatusInternalServerError, "mount pods: ")
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, run := range []func(context.Context) error{keeper.Run, n.registration.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	// The kubelet asks as soon as it sees the socket, and says then what has become of it.
	kubelet, err := grpc.NewClient("unix://"+filepath.Join(dir, csi.DefaultName+"-reg.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer kubelet.Close()
	notify := func(s *pluginregistration.RegistrationStatus) {
		t.Helper()
		if _, err := pluginregistration.NewRegistrationClient(kubelet).NotifyRegistrationStatus(ctx, s, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	notify(&pluginregistration.RegistrationStatus{Error: "the name is taken"})
	if err := keeper.Release(ctx, "/none"); err != nil { // it answers when it is up
		t.Fatal(err)
	}
	expect("/readyz", http.StatusInternalServerError, "registration: the kubelet refuses driver "+csi.DefaultName+": the name is taken")
	expect("/healthz", http.StatusOK, "ok")
	notify(&pluginregistration.RegistrationStatus{PluginRegistered: true})
	expect("/readyz", http.StatusOK, "ok")
}

// noSessions is a broker without sessions.
type noSessions struct{ mountpod.Broker }

func (noSessions) Close(context.Context, mount.SessionID, time.Duration) error { return nil }

// noPods is an API server without Mount Pods.
type noPods struct{ mountpod.Pods }

func (noPods) Watch(ctx context.Context, h mountpod.Handler) error {
	h.Synced()
	<-ctx.Done()
	return nil
}

func TestCSIControllerNeedsItsWorker(t *testing.T) {
	cmd := newCSIControllerCommand()
	cmd.SetArgs(nil)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "--worker-socket") {
		t.Errorf("got %v", err)
	}
}
