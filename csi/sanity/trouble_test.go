package sanity

import (
	"bufio"
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
)

// publish publishes a volume of a file system as the kubelet does.
func (d *driver) publish(secret map[string]string, volume string) (target string, err error) {
	d.t.Helper()
	client := spec.NewNodeClient(d.connect())
	target = filepath.Join(d.kubelet, "pods", "pod-"+volume, "volumes", "kubernetes.io~csi", volume, "mount")
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	_, err = client.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{
		VolumeId: volume, TargetPath: target, Secrets: secret,
		VolumeCapability: &spec.VolumeCapability{
			AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
			AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{}},
		},
		VolumeContext: map[string]string{"juicefs/host-path": d.storage},
	})
	d.t.Cleanup(func() { d.unpublish(client, volume, target) })
	return target, err
}

// unpublish takes a volume away again, as often as it is called.
func (d *driver) unpublish(client spec.NodeClient, volume, target string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := client.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: target}); err != nil {
		d.t.Errorf("unpublish: %v", err)
	}
}

// writer starts a process that has written to a file of the volume and keeps it open, and returns what kills it and waits for its end.
func (d *driver) writer(path string) (kill func()) {
	d.t.Helper()
	cmd := exec.Command("sh", "-c", `exec >"$1" && head -c 100000 /dev/zero && echo written >&2 && exec sleep 600`, "writer", path)
	written, err := cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	if line, err := bufio.NewReader(written).ReadString('\n'); err != nil || line != "written\n" {
		d.t.Errorf("writer: %q, %v", line, err)
	}
	ended := make(chan struct{})
	return func() {
		_ = cmd.Process.Kill()
		go func() {
			defer close(ended)
			_ = cmd.Wait() // it was killed
		}()
		d.t.Cleanup(func() {
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				d.t.Error("a process that had a file of the volume open does not end")
			}
		})
	}
}

// redis starts a metadata engine with a password, and returns its address and how to stop it.
func (d *driver) redis(password string) (address string, stop func()) {
	d.t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		d.t.Skip("skipped: redis-server is not there")
	}
	l, err := new(net.ListenConfig).Listen(d.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	address = l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	if err := l.Close(); err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--requirepass", password, "--save", "", "--dir", d.node.Dir)
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
	}
	d.t.Cleanup(stop)
	awaitOn(d.t, "tcp", address)
	return address, stop
}

func TestAnEngineThatIsAway(t *testing.T) {
	mountpodtest.NeedSessions(t)
	d := start(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobodyThere := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = d.publish(d.secret("redis://:"+password+"@"+nobodyThere+"/1"), "away")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 50*time.Second {
		t.Errorf("the answer took %s", took)
	}
	d.keepsItsSecrets(err)
}

func TestWrongCredentialsAndTheirMending(t *testing.T) {
	mountpodtest.NeedSessions(t)
	d := start(t)
	address, _ := d.redis(password)
	_, err := d.publish(d.secret("redis://:"+password+"-stale@"+address+"/1"), "creds")
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "password") && !strings.Contains(err.Error(), "AUTH") {
		t.Errorf("got %v, want the engine's words", err)
	}
	d.keepsItsSecrets(err)
	target, err := d.publish(d.secret("redis://:"+password+"@"+address+"/1"), "creds")
	if err != nil {
		t.Fatalf("after the Secret was mended: %v", err)
	}
	if err := os.WriteFile(filepath.Join(target, "file"), []byte("data"), 0o600); err != nil {
		t.Error(err)
	}
	d.keepsItsSecrets(nil)
}

func TestAnEngineThatIsAwayKeepsNoVolume(t *testing.T) {
	mountpodtest.NeedSessions(t)
	d := start(t)
	address, stop := d.redis(password)
	target, err := d.publish(d.secret("redis://:"+password+"@"+address+"/1"), "leaving")
	if err != nil {
		t.Fatal(err)
	}
	// What it has written waits for the engine, as far as anything does.
	kill := d.writer(filepath.Join(target, "file"))
	stop()
	kill()
	began := time.Now()
	d.unpublish(spec.NewNodeClient(d.connect()), "leaving", target)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("unpublish took %s", took)
	}
	// The client may flush for its grace, and is ended by force soon after.
	limit := d.node.Grace() + 15*time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); len(d.node.Broker.Sessions()) > 0 || len(d.node.Pods.All()) > 0; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %s there are sessions %v and %d pods", limit, d.node.Broker.Sessions(), len(d.node.Pods.All()))
		}
	}
	t.Logf("session and Mount Pod were gone after %s", time.Since(began))
}

// password is in every metaurl of these tests.
const password = "hunter2-secret"

// keepsItsSecrets fails the test if the password is in the error, a log, a file of the driver, an argument or an environment.
func (d *driver) keepsItsSecrets(err error) {
	d.t.Helper()
	if err != nil && strings.Contains(err.Error(), password) {
		d.t.Errorf("the error tells the password: %v", err)
	}
	if strings.Contains(d.log.String(), password) {
		d.t.Error("the log tells the password")
	}
	for _, dir := range []string{"state", "run", "logs", "worker", "kubelet/plugins"} {
		walk := func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // it is gone, or no file
			}
			content, err := os.ReadFile(path)
			if err == nil && bytes.Contains(content, []byte(password)) {
				d.t.Errorf("the password is in %s", path)
			}
			return nil
		}
		if err := filepath.WalkDir(filepath.Join(d.node.Dir, dir), walk); err != nil {
			d.t.Error(err)
		}
	}
	for _, pod := range d.node.Pods.All() {
		if text := pod.String(); strings.Contains(text, password) {
			d.t.Errorf("the password is in pod %s", pod.Name)
		}
	}
}
