package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const uid = types.UID("0e6f5b0c-7a51-4c1b-8a9e-2f4a3f9c1d11")

// limited is a pod of one container with the given limits, "" meaning none.
func limited(request, cpu, memory string) *corev1.Pod {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, v := range []struct {
		list  corev1.ResourceList
		name  corev1.ResourceName
		value string
	}{{r.Requests, corev1.ResourceCPU, request}, {r.Limits, corev1.ResourceCPU, cpu}, {r.Limits, corev1.ResourceMemory, memory}} {
		if v.value != "" {
			v.list[v.name] = resource.MustParse(v.value)
		}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: uid},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Resources: r}}},
	}
}

func TestPodLimits(t *testing.T) {
	withInit := limited("500m", "1", "1Gi")
	withInit.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	podLevel := limited("", "", "")
	podLevel.Spec.Resources = &corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3"), corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
	huge := limited("", "", "")
	huge.Spec.Containers[0].Resources.Requests["hugepages-2Mi"] = resource.MustParse("8Mi")
	overhead := limited("500m", "1", "1Gi")
	overhead.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want limits
	}{
		{"nothing", limited("", "", ""), limits{shares: 2, period: 100000}},
		{"requests", limited("500m", "", ""), limits{shares: 512, period: 100000}},
		{"limits", limited("500m", "1", "1Gi"), limits{shares: 512, period: 100000, quota: 100000, memory: 1 << 30}},
		{"an init container without", withInit, limits{shares: 512, period: 100000}},
		{"the pod's own", podLevel, limits{shares: 2048, period: 100000, quota: 300000, memory: 1 << 30}},
		{"huge pages", huge, limits{shares: 2, period: 100000, hugepages: map[string]int64{"2MB": 8 << 20}}},
		{"overhead", overhead, limits{shares: 1024, period: 100000, quota: 150000, memory: 2 << 30}},
	} {
		got := podLimits(tt.pod)
		if len(got.hugepages) == 0 {
			got.hugepages = nil
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(limits{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[int64]int64{0: 1, 2: 1, 102: 17, 1024: 100, 2048: 174, 262144: 10000, 300000: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

// fake makes the files of a group, which a kernel would.
func fake(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestUnifiedTree(t *testing.T) {
	root := t.TempDir()
	group := func() map[string]string {
		return map[string]string{
			controllersFile: "cpuset cpu io memory pids rdma", subtreeFile: "", "cpu.weight": "100", "cpu.max": "max 100000", "memory.max": "max",
		}
	}
	fake(t, root, map[string]string{controllersFile: "cpuset cpu io memory pids rdma", subtreeFile: "cpu memory"})
	fake(t, filepath.Join(root, "node"), group())
	fake(t, filepath.Join(root, "node", "pod"+string(uid)), group())
	m, err := New(Options{Root: root, Parent: "/node"})
	if err != nil {
		t.Fatal(err)
	}
	name, err := m.Create(limited("500m", "1500m", "1Gi"))
	if err != nil || name != "/node/pod"+string(uid) {
		t.Fatalf("Create = %q, %v", name, err)
	}
	if got := content(t, root, subtreeFile); got != "+cpuset +io +pids" {
		t.Errorf("root passes on %q, want what was missing", got)
	}
	if got := content(t, root, "node", subtreeFile); got != "+cpu +cpuset +io +memory +pids" {
		t.Errorf("the parent passes on %q", got)
	}
	pod := filepath.Join(root, name)
	for file, want := range map[string]string{"cpu.weight": "59", "cpu.max": "150000 100000", "memory.max": "1073741824"} {
		if got := content(t, pod, file); got != want {
			t.Errorf("%s = %q, want %q", file, got, want)
		}
	}
	if _, err := m.Create(limited("", "", "")); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"cpu.weight": "1", "cpu.max": "max 100000", "memory.max": "max"} {
		if got := content(t, pod, file); got != want {
			t.Errorf("without limits %s = %q, want %q", file, got, want)
		}
	}
	if got, err := m.Pods(); err != nil || len(got) != 1 || got[0] != uid {
		t.Errorf("Pods = %v, %v", got, err)
	}
}

func TestLegacyTreeInheritsCpusets(t *testing.T) {
	root := t.TempDir()
	fake(t, filepath.Join(root, "cpuset"), map[string]string{"cgroup.procs": "", "cpuset.cpus": "0-3", "cpuset.mems": "0"})
	fake(t, filepath.Join(root, "cpuset", "node"), map[string]string{"cpuset.cpus": "", "cpuset.mems": "\n"})
	pod := filepath.Join(root, "cpuset", "node", "pod"+string(uid))
	fake(t, pod, map[string]string{"cpuset.cpus": "1", "cpuset.mems": ""})
	fake(t, filepath.Join(root, "unified"), map[string]string{"cgroup.procs": "", controllersFile: "hugetlb"})
	fake(t, filepath.Join(root, "elsewhere"), nil)
	if err := os.Symlink("cpuset", filepath.Join(root, "alias")); err != nil {
		t.Fatal(err)
	}
	m, err := New(Options{Root: root, Parent: "/node"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(limited("", "", "")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, root, "cpuset", "node", "cpuset.cpus"); got != "0-3" {
		t.Errorf("the parent has CPUs %q", got)
	}
	if cpus, mems := content(t, pod, "cpuset.cpus"), content(t, pod, "cpuset.mems"); cpus != "1" || mems != "0" {
		t.Errorf("the pod has CPUs %q and memory nodes %q; want its own and the inherited", cpus, mems)
	}
	if _, err := os.Stat(filepath.Join(root, "elsewhere", "node")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a group was made in what is no hierarchy")
	}
	runtimes := filepath.Join(root, "unified", "node", "pod"+string(uid), "container")
	fake(t, runtimes, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Remove(ctx, uid); !errors.Is(err, ErrBusy) {
		t.Errorf("Remove: %v; want ErrBusy, because plain directories keep their files", err)
	}
	if _, err := os.Stat(filepath.Join(root, "unified", "node", "pod"+string(uid))); !errors.Is(err, os.ErrNotExist) {
		t.Error("a runtime's group beside version 1 was left")
	}
}

func TestSystemdNames(t *testing.T) {
	root := t.TempDir()
	fake(t, root, map[string]string{controllersFile: ""})
	m, err := New(Options{Root: root, Parent: "/side-mount/a", Driver: Systemd})
	if err != nil {
		t.Fatal(err)
	}
	name, err := m.Create(limited("", "", ""))
	if want := "side_mount-a-pod0e6f5b0c_7a51_4c1b_8a9e_2f4a3f9c1d11.slice"; err != nil || name != want {
		t.Errorf("Create = %q, %v; want %q", name, err, want)
	}
	if err := m.Remove(t.Context(), uid); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	root := t.TempDir()
	fake(t, root, map[string]string{controllersFile: ""})
	for _, o := range []Options{{Root: root, Parent: "relative"}, {Root: root, Parent: "/"}, {Root: root, Driver: "magic"}, {Root: t.TempDir()}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
}

// TestKernel uses the machine's own control groups.
func TestKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: making control groups needs root")
	}
	parent := "/sidemount-test-" + strconv.Itoa(os.Getpid())
	m, err := New(Options{Parent: parent})
	if err != nil {
		t.Skipf("skipped: no control groups here: %v", err)
	}
	t.Cleanup(func() {
		for _, dir := range m.tree.dirs(parent) {
			if err := tryRemove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	name, err := m.Create(limited("500m", "1500m", "64Mi"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(limited("250m", "1", "32Mi")); err != nil {
		t.Fatalf("Create again: %v", err)
	}
	want := map[string]string{"cpu.shares": "256", "cpu.cfs_quota_us": "100000", "memory.limit_in_bytes": "33554432",
		"cpu.max": "100000 100000", "memory.max": "33554432", "cpu.weight": "35"}
	found := 0
	for _, dir := range m.tree.dirs(name) {
		for file, value := range want {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				found++
				if got := content(t, dir, file); got != value {
					t.Errorf("%s/%s = %q, want %q", dir, file, got, value)
				}
			}
		}
	}
	if found < 2 {
		t.Errorf("only %d limits were found in the kernel", found)
	}
	if got, err := m.Pods(); err != nil || len(got) != 1 || got[0] != uid {
		t.Errorf("Pods = %v, %v", got, err)
	}
	removeWaits(t, m, name)
}

// removeWaits has a process in a group of a container and expects Remove to give up while it lives and to succeed when it ends.
func removeWaits(t *testing.T, m *Manager, name string) {
	t.Helper()
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = child.Wait()
	}()
	defer func() { <-ended }()
	defer func() { _ = child.Process.Kill() }()
	container := filepath.Join(m.tree.dirs(name)[0], "container")
	if err := os.Mkdir(container, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := write(container, "cgroup.procs", strconv.Itoa(child.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.Remove(ctx, uid); !errors.Is(err, ErrBusy) {
		t.Errorf("Remove with a process: %v, want ErrBusy", err)
	}
	removed := make(chan error, 1)
	go func() { removed <- m.Remove(t.Context(), uid) }()
	if err := child.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := <-removed; err != nil {
		t.Errorf("Remove while the process ends: %v", err)
	}
	for _, dir := range m.tree.dirs(name) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	if err := m.Remove(t.Context(), uid); err != nil {
		t.Errorf("Remove again: %v", err)
	}
}
