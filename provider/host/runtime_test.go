package host

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/object"
	"github.com/sidemount/sidemount/provider/volume"
)

// endpoint is a CRI endpoint that remembers what it was asked for and runs nothing.
type endpoint struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	mu        sync.Mutex
	sandbox   *runtimeapi.RunPodSandboxRequest
	container *runtimeapi.CreateContainerRequest
	pulls     []*runtimeapi.PullImageRequest
	noNetwork bool
}

func (e *endpoint) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.noNetwork {
		return nil, errors.New("cni plugin not initialized")
	}
	e.sandbox = r
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: "sandbox-1"}, nil
}

func (e *endpoint) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.container = r
	return &runtimeapi.CreateContainerResponse{ContainerId: "container-1"}, nil
}

func (e *endpoint) RemoveContainer(context.Context, *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (e *endpoint) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	if r.Image.Image == "absent:latest" || r.Image.Image == "sha256:gone" {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:app", Size: 4711, RepoTags: []string{"app:1"}}}, nil
}

func (e *endpoint) PullImage(_ context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pulls = append(e.pulls, r)
	return &runtimeapi.PullImageResponse{ImageRef: "sha256:app"}, nil
}

func (e *endpoint) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: !e.noNetwork, Message: "cni plugin not initialized"},
	}}}, nil
}

// secrets are the Secrets and ConfigMaps of a cluster, by name.
type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if secret, ok := s[name]; ok {
		return secret, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
}

func (s secrets) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
}

func (secrets) Acquire(*corev1.Pod)          {}
func (secrets) Release(types.UID)            {}
func (secrets) OnChange(func(uid types.UID)) {}

// noTokens issues none.
type noTokens struct{}

func (noTokens) Token(context.Context, *corev1.Pod, string, int64) (object.Token, error) {
	return object.Token{}, errors.New("no tokens here")
}
func (noTokens) Forget(types.UID) {}

// machine is a Host on the endpoint with everything else real.
func machine(t *testing.T, e *endpoint, known secrets) (*Host, *record.FakeRecorder) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "cri.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, e)
	runtimeapi.RegisterImageServiceServer(server, e)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	runtime, err := cri.New(cri.Options{Endpoint: "unix://" + socket, Node: "virtual-1", Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := runtime.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		<-done
	})
	volumes, err := volume.New(volume.Options{Root: dir, Objects: known, Tokens: noTokens{}})
	if err != nil {
		t.Fatal(err)
	}
	recorder := record.NewFakeRecorder(20)
	host, err := New(Options{
		Runtime: runtime, Volumes: volumes, Objects: known, Recorder: recorder, Root: dir, LogDir: filepath.Join(dir, "logs"),
		DNS:       cri.DNS{ClusterServers: []string{"10.96.0.10"}, ClusterDomain: "cluster.local"},
		HostIPs:   func() []string { return []string{"10.0.0.7"} },
		NodeHosts: func() ([]byte, error) { return []byte("10.0.0.7 host\n"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return host, recorder
}

func somePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec: corev1.PodSpec{
			NodeName:  "virtual-1",
			DNSPolicy: corev1.DNSClusterFirst,
			Volumes:   []corev1.Volume{{Name: "own", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}}},
			Containers: []corev1.Container{{
				Name: "app", Image: "app:1", Command: []string{"serve", "--ip=$(IP)"}, TerminationMessagePath: "/dev/termination-log",
				Env: []corev1.EnvVar{
					{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
					{Name: "HOST", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.hostIP"}}},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: "/own"}},
			}},
		},
	}
}
