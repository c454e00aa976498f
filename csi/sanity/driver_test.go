package sanity

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
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
	log         *logBook
}

// start starts a driver with controller and node service on one socket.
func start(t *testing.T) *driver {
	t.Helper()
	client := clientProgram(t)
	node := mountpodtest.Start(t)
	node.Pods.Programs["/usr/local/bin/sidemount-juicefs"] = client
	d := &driver{
		t: t, node: node, kubelet: filepath.Join(node.Dir, "kubelet"), storage: node.Data, socket: filepath.Join(node.Dir, "csi.sock"),
		secretsFile: filepath.Join(node.Dir, "secrets.yaml"), log: &logBook{t: t},
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
	log.SetLevel(logrus.DebugLevel)
	log.SetOutput(d.log)
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

// connect returns a connection to the driver that lasts as long as the driver.
func (d *driver) connect() *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpc.NewClient("unix://"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// format makes the file system, as the first volume of a StorageClass does. Some tests of csi-sanity delete before anything was made, and where
// there is no file system the driver does not say that a volume is deleted: the address may be wrong.
func (d *driver) format() {
	d.t.Helper()
	client := spec.NewControllerClient(d.connect())
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	secret := d.secret("sqlite3://" + filepath.Join(d.storage, "meta.db"))
	_, err := client.CreateVolume(ctx, &spec.CreateVolumeRequest{
		Name: "first", Secrets: secret, Parameters: map[string]string{"juicefs/host-path": d.storage}, VolumeCapabilities: []*spec.VolumeCapability{{
			AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
			AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{}},
		}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := client.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: "first", Secrets: secret}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) bucket() string { return filepath.Join(d.storage, "objects") }

// secret is that of a file system with its objects on this machine.
func (d *driver) secret(metaURL string) map[string]string {
	return map[string]string{"name": "sanity", "metaurl": metaURL, "storage": "file", "bucket": d.bucket()}
}

// writeSecrets describes a file system in files of this machine, which the first volume formats.
func (d *driver) writeSecrets() {
	d.t.Helper()
	if err := os.Mkdir(d.bucket(), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chown(d.bucket(), nobody, nobody); err != nil {
		d.t.Fatal(err)
	}
	secret := d.secret("sqlite3://" + filepath.Join(d.storage, "meta.db"))
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
	cmd.Stdout, cmd.Stderr = d.log, d.log
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
	awaitOn(t, "unix", socket)
}

func awaitOn(t *testing.T, network, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if conn, err := new(net.Dialer).DialContext(ctx, network, address); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("nobody listens on %s; if .cache/bin/sidemount-juicefs is old: make build", address)
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

// logBook keeps what is logged, and sends it to the test's log.
type logBook struct {
	t  *testing.T
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Log(string(p))
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
