package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/cri"
)

// The runtime to test with, and an image with busybox in it.
const (
	envEndpoint = "SIDEMOUNT_TEST_CRI"
	envImage    = "SIDEMOUNT_TEST_CRI_IMAGE"
)

// lines is how many lines the container writes, about 1 MiB in all.
const lines = 20000

// talker runs a container that writes numbered lines, with a pause now and then, and returns its id and the root of its log.
func talker(ctx context.Context, t *testing.T, r *cri.Runtime, node string) (pod *corev1.Pod, id, root string) {
	t.Helper()
	image := os.Getenv(envImage)
	if image == "" {
		image = "busybox:1.36"
	}
	if _, err := r.PullImage(ctx, image, nil, nil); err != nil {
		t.Fatal(err)
	}
	status, err := r.ImageStatus(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "pods")
	pod = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "talker", UID: types.UID(node)},
		Spec:       corev1.PodSpec{NodeName: node, HostNetwork: true, Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
	sandbox, err := cri.SandboxConfig(pod, cri.SandboxInput{LogDir: root})
	if err != nil {
		t.Fatal(err)
	}
	sandboxID, err := r.RunSandbox(ctx, &cri.SandboxSpec{Config: sandbox})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(r.StopSandbox(ctx, sandboxID), r.RemoveSandbox(ctx, sandboxID)); err != nil {
			t.Error(err)
		}
	})
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; [ $((i %% 200)) = 0 ] && sleep 0.02; done", lines)
	config, err := cri.ContainerConfig(pod, &pod.Spec.Containers[0], cri.ContainerInput{Image: status, Command: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err = r.CreateContainer(ctx, sandboxID, &cri.ContainerSpec{Config: config, Sandbox: sandbox}); err != nil {
		t.Fatal(err)
	}
	return pod, id, root
}

// TestRealRotation lets a real runtime write while its log is rotated again and again, and expects a follower to miss nothing.
func TestRealRotation(t *testing.T) {
	endpoint := os.Getenv(envEndpoint)
	if endpoint == "" {
		t.Skipf("skipped: %s names no runtime", envEndpoint)
	}
	node := fmt.Sprintf("logs-test-%d", os.Getpid())
	runtime, err := cri.New(cri.Options{Endpoint: endpoint, Node: node, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := runtime.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	pod, id, root := talker(ctx, t, runtime, node)
	if err := runtime.StartContainer(ctx, id); err != nil {
		t.Fatal(err)
	}
	status, err := runtime.ContainerStatus(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(cri.PodLogDir(root, pod), "app", "0.log"); status.LogPath != want {
		t.Fatalf("the log is %s, want %s", status.LogPath, want)
	}
	keeper, err := NewKeeper(KeeperOptions{Runtime: runtime, Root: root, Links: t.TempDir(), MaxSize: 32 << 10, Interval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	kept := make(chan error, 1)
	keeping, stop := context.WithCancel(ctx)
	go func() { kept <- keeper.Run(keeping) }()
	defer func() {
		stop()
		if err := <-kept; err != nil {
			t.Error(err)
		}
	}()
	running := func(ctx context.Context) (bool, error) {
		c, err := runtime.ContainerStatus(ctx, id)
		return c.State == cri.Running, err
	}
	var got strings.Builder
	var r Reader
	o := all()
	o.Follow = true
	if err := r.Read(ctx, status.LogPath, o, running, &got, &got); err != nil {
		t.Fatal(err)
	}
	r.Close()
	rotations, _ := filepath.Glob(status.LogPath + ".*")
	if len(rotations) < 3 {
		t.Errorf("the log was rotated to %d files only", len(rotations))
	}
	want := 0
	for line := range strings.Lines(got.String()) {
		if want++; line != fmt.Sprintf("line %d\n", want) {
			t.Fatalf("line %d is %q", want, line)
		}
	}
	if want != lines {
		t.Errorf("%d lines, want %d", want, lines)
	}
}
