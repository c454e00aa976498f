package sanity

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/yaml"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/sidecar"
)

// nobody is the identity of the worker, as in its pod.
const nobody = 65534

// driver is the whole driver on one node.
type driver struct {
	t       *testing.T
	node    *mountpodtest.Node
	kubelet string
	// storage holds the metadata engine and the objects of the file system.
	storage     string
	socket      string
	secretsFile string
}

// start starts a driver with controller and node service on one socket.
func start(t *testing.T) *driver {
	t.Helper()
	client := clientProgram(t)
	node := mountpodtest.Start(t)
	node.Pods.Programs["/usr/local/bin/sidemount-juicefs"] = client
	d := &driver{
		t: t, node: node, kubelet: filepath.Join(node.Dir, "kubelet"), storage: node.Data, socket: filepath.Join(node.Dir, "csi.sock"),
		secretsFile: filepath.Join(node.Dir, "secrets.yaml"),
	}
	d.writeSecrets()
	volumes, err := sidecar.NewResolver(sidecar.Options{Objects: objects{}})
	if err != nil {
		t.Fatal(err)
	}
	controller, err := csi.NewController(csi.ControllerOptions{Admin: admin.NewClient(d.startWorker(client)), Volumes: volumes})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(d.kubelet, "pods"), 0o750); err != nil {
		t.Fatal(err)
	}
	service, err := csi.NewNode(csi.NodeOptions{
		NodeName: "node-1", KubeletDir: d.kubelet, Keeper: node.Keeper, Sessions: node.Broker, Volumes: volumes, Objects: objects{},
		Recorder: record.NewFakeRecorder(1000), AgentPath: mountpodtest.Agent(), MaxVolumes: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.serve(controller, asKubelet{service})
	return d
}

// asKubelet adds to a publish what the kubelet adds for a CSIDriver with podInfoOnMount.
type asKubelet struct{ spec.NodeServer }

func (k asKubelet) NodePublishVolume(ctx context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	attributes := map[string]string{
		"csi.storage.k8s.io/pod.name": "sanity", "csi.storage.k8s.io/pod.namespace": "default", "csi.storage.k8s.io/pod.uid": "sanity",
		"csi.storage.k8s.io/ephemeral": "false",
	}
	maps.Copy(attributes, r.VolumeContext)
	r.VolumeContext = attributes
	return k.NodeServer.NodePublishVolume(ctx, r)
}

func (d *driver) serve(controller spec.ControllerServer, node spec.NodeServer) {
	d.t.Helper()
	log := logrus.New()
	log.SetOutput(logTo{d.t})
	server, err := csi.New(csi.Options{Endpoint: d.socket, Version: "test", Controller: controller, Node: node, Log: log})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Errorf("serve: %v", err)
		}
	})
	await(d.t, d.socket)
}

// writeSecrets describes a file system in files of this machine, which the first volume formats.
func (d *driver) writeSecrets() {
	d.t.Helper()
	objects := filepath.Join(d.storage, "objects")
	if err := os.Mkdir(objects, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chown(objects, nobody, nobody); err != nil {
		d.t.Fatal(err)
	}
	secret := map[string]string{
		"name": "sanity", "metaurl": "sqlite3://" + filepath.Join(d.storage, "meta.db"), "storage": "file", "bucket": objects,
	}
	all := map[string]map[string]string{}
	for _, call := range []string{
		"CreateVolume", "DeleteVolume", "ControllerValidateVolumeCapabilities", "NodePublishVolume", "CreateSnapshot", "DeleteSnapshot",
		"ControllerExpandVolume", "ListSnapshots",
	} {
		all[call+"Secret"] = secret
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.secretsFile, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// clientProgram is the JuiceFS client of this tree; without it the test is left out.
func clientProgram(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("BIN")
	if bin == "" {
		bin = "../../.cache/bin"
	}
	program, err := filepath.Abs(filepath.Join(bin, "sidemount-juicefs"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
		t.Skipf("skipped: %s is not there; make build", program)
	}
	return program
}

// startWorker starts the worker as an ordinary user and returns its socket.
func (d *driver) startWorker(program string) string {
	d.t.Helper()
	dir := filepath.Join(d.node.Dir, "worker")
	if err := os.Mkdir(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		d.t.Fatal(err)
	}
	socket := filepath.Join(dir, "worker.sock")
	cmd := exec.Command(program, "worker", "--socket", socket, "--allow-uid", strconv.Itoa(os.Getuid()))
	cmd.Dir, cmd.Env = "/", []string{"HOME=/tmp"}
	cmd.Stdout, cmd.Stderr = logTo{d.t}, logTo{d.t}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		force := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer force.Stop()
		if err := cmd.Wait(); err != nil {
			d.t.Errorf("worker: %v", err)
		}
	})
	await(d.t, socket)
	return socket
}

// await returns when somebody listens on the socket.
func await(t *testing.T, socket string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("nobody listens on %s; if %s is old: make build", socket, "sidemount-juicefs")
		}
	}
}

// objects is an API server without objects: the volumes of csi-sanity have none.
type objects struct{}

func (objects) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumes"), name)
}

func (objects) PersistentVolumeClaim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}

func (objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

// logTo sends a log to the test's.
type logTo struct{ t *testing.T }

func (w logTo) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}
