package csi

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/sidecar"
)

func TestMain(m *testing.M) { os.Exit(mountpodtest.Main(m)) }

// rig is a node service on a node with Mount Pods as processes, below a kubelet's directory.
type rig struct {
	*Node
	t       *testing.T
	host    *mountpodtest.Node
	kubelet string
	objects *volumeAPI
	events  *record.FakeRecorder
	log     *buffer
}

func newRig(t *testing.T, change ...func(*mountpod.Options)) *rig {
	t.Helper()
	host := mountpodtest.Start(t, change...)
	r := &rig{t: t, host: host, kubelet: filepath.Join(host.Dir, "kubelet"), objects: &volumeAPI{}, log: &buffer{}}
	if err := os.MkdirAll(filepath.Join(r.kubelet, "pods"), 0o750); err != nil {
		t.Fatal(err)
	}
	r.restart()
	t.Cleanup(r.detachAll)
	// The keeper answers when it is ready; before, it could not be ended in order.
	if err := host.Release(t.Context(), "/none"); err != nil {
		t.Fatal(err)
	}
	return r
}

// restart is another process of the driver; broker and keeper are the host's.
func (r *rig) restart() {
	r.t.Helper()
	volumes, err := sidecar.NewResolver(sidecar.Options{Objects: r.objects})
	if err != nil {
		r.t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(r.log)
	r.events = record.NewFakeRecorder(1000)
	r.Node, err = NewNode(NodeOptions{
		NodeName: "node-1", KubeletDir: r.kubelet, Keeper: r.host.Keeper, Sessions: r.host.Broker, Volumes: volumes, Objects: r.objects,
		Recorder: r.events, AgentPath: mountpodtest.Agent(), PublishTimeout: 20 * time.Second, StatsTimeout: time.Second, Log: log,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// detachAll takes down what a failed test has left.
func (r *rig) detachAll() {
	entries, err := mountpoint.Under(r.kubelet)
	if err != nil {
		r.t.Error(err)
	}
	for _, e := range entries {
		if err := mountpoint.Detach(e.Point); err != nil {
			r.t.Error(err)
		}
	}
}

// target makes the directory above a pod's target, as the kubelet does, and returns the target.
func (r *rig) target(pod, volume string) string {
	r.t.Helper()
	dir := filepath.Join(r.kubelet, "pods", pod, "volumes", kubeletPlugin, volume)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(dir, "mount")
}

// request publishes a directory of the host as a volume, as the kubelet asks for a PersistentVolume.
func (r *rig) request(volume, target string) *spec.NodePublishVolumeRequest {
	return &spec.NodePublishVolumeRequest{
		VolumeId: volume, TargetPath: target, VolumeCapability: capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER),
		VolumeContext: map[string]string{
			"sidemount.io/client": "passthrough", "path": r.host.Data,
			keyPodName: "web-0", keyNamespace: "shop", keyPodUID: "uid-1", keyEphemeral: "false",
		},
	}
}

// publish publishes with the kubelet's deadline.
func (r *rig) publish(request *spec.NodePublishVolumeRequest) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	_, err := r.NodePublishVolume(ctx, request)
	return translate(err)
}

func (r *rig) mustPublish(request *spec.NodePublishVolumeRequest) {
	r.t.Helper()
	if err := r.publish(request); err != nil {
		r.t.Fatalf("publish: %v", err)
	}
}

func (r *rig) unpublish(volume, target string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	_, err := r.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: target})
	return translate(err)
}

func (r *rig) mustUnpublish(volume, target string) {
	r.t.Helper()
	if err := r.unpublish(volume, target); err != nil {
		r.t.Fatalf("unpublish: %v", err)
	}
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		r.t.Errorf("target after unpublish: %v", err)
	}
	if at := r.at(target); len(at) != 0 {
		r.t.Errorf("mounts after unpublish: %v", at)
	}
}

func (r *rig) at(target string) []mountpoint.Entry {
	r.t.Helper()
	at, err := mountpoint.At(target)
	if err != nil {
		r.t.Fatal(err)
	}
	return at
}

// works fails the test unless a file that is written at the target is in the volume, and one mount is at the target.
func (r *rig) works(target, name string) {
	r.t.Helper()
	if at := r.at(target); len(at) != 1 {
		r.t.Fatalf("mounts at the target: %v", at)
	}
	if err := os.WriteFile(filepath.Join(target, name), []byte(name), 0o666); err != nil {
		r.t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(r.host.Data, name)); err != nil || string(got) != name {
		r.t.Fatalf("in the volume: %q, %v", got, err)
	}
}

// eventually waits for a condition that no event tells of here.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for tick := time.NewTicker(10 * time.Millisecond); !is(); {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// refused fails the test unless the error has the code and each of the words.
func refused(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want %q in it", err, w)
		}
	}
}

// volumeAPI is an API server with volumes and claims that counts what it is asked.
type volumeAPI struct {
	mu     sync.Mutex
	pvs    map[string]*corev1.PersistentVolume
	claims map[string]*corev1.PersistentVolumeClaim
	asked  int
	down   error
}

func (c *volumeAPI) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if pv := c.pvs[name]; pv != nil || c.down != nil {
		return pv, c.down
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumes"), name)
}

func (c *volumeAPI) PersistentVolumeClaim(_ context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if claim := c.claims[namespace+"/"+name]; claim != nil || c.down != nil {
		return claim, c.down
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}

func (c *volumeAPI) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return nil, apierrors.NewForbidden(corev1.Resource("secrets"), name, nil)
}

func (c *volumeAPI) calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = 0
	return asked
}

// bind makes a PersistentVolume with its claim.
func (c *volumeAPI) bind(name, handle string, annotations map[string]string) {
	c.pvs = map[string]*corev1.PersistentVolume{name: {
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data", UID: "claim-1"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: DefaultName, VolumeHandle: handle, NodePublishSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "fs"},
			}},
		},
	}}
	c.claims = map[string]*corev1.PersistentVolumeClaim{"shop/data": {
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim-1", Annotations: annotations},
	}}
}
