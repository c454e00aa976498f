package cri_test

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
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/cri/cgroup"
)

// The runtime to test with, its root of control groups if that is not this machine's, and an image with busybox in it.
const (
	envEndpoint = "SIDEMOUNT_TEST_CRI"
	envCgroup   = "SIDEMOUNT_TEST_CRI_CGROUP"
	envImage    = "SIDEMOUNT_TEST_CRI_IMAGE"
)

// lab is a node of its own on a real runtime. Nothing of it is left when the test ends.
type lab struct {
	t       *testing.T
	runtime *cri.Runtime
	host    cri.Host
	cgroups *cgroup.Manager
	// cgroupRoot is the runtime's root of control groups as this process sees it.
	cgroupRoot string
	dir        string
	node       string
	image      cri.Image
	imageName  string
	pods       int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	endpoint := os.Getenv(envEndpoint)
	if endpoint == "" {
		t.Skipf("skipped: %s names no runtime", envEndpoint)
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: control groups need root")
	}
	l := &lab{t: t, dir: t.TempDir(), node: fmt.Sprintf("cri-test-%d", os.Getpid()), cgroupRoot: os.Getenv(envCgroup), imageName: os.Getenv(envImage)}
	if l.imageName == "" {
		l.imageName = "busybox:1.36"
	}
	var err error
	if l.runtime, err = cri.New(cri.Options{Endpoint: endpoint, Node: l.node, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if l.host, err = cri.ProbeHost("/"); err != nil {
		t.Fatal(err)
	}
	if l.cgroups, err = cgroup.New(cgroup.Options{Parent: l.cgroupRoot + "/" + l.node}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.runtime.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.runtime.PullImage(ctx, l.imageName, nil, nil); err != nil {
		t.Fatal(err)
	}
	if l.image, err = l.runtime.ImageStatus(ctx, l.imageName); err != nil || l.image.ID == "" {
		t.Fatalf("image %+v, %v", l.image, err)
	}
	return l
}

func (l *lab) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pods, err := l.runtime.Pods(ctx)
	if err != nil {
		l.t.Error(err)
	}
	for _, p := range pods {
		for _, s := range p.Sandboxes {
			if err := errors.Join(l.runtime.StopSandbox(ctx, s.ID), l.runtime.RemoveSandbox(ctx, s.ID)); err != nil {
				l.t.Error(err)
			}
		}
	}
	uids, err := l.cgroups.Pods()
	if err != nil {
		l.t.Error(err)
	}
	for _, uid := range uids {
		if err := l.cgroups.Remove(ctx, uid); err != nil {
			l.t.Error(err)
		}
	}
	groups, _ := filepath.Glob(filepath.Join(cgroup.DefaultRoot, "*", l.cgroupRoot, l.node))
	for _, g := range groups {
		if err := os.Remove(g); err != nil {
			l.t.Error(err)
		}
	}
	if err := l.runtime.Close(); err != nil {
		l.t.Error(err)
	}
}

// pod returns a pod of one container that runs a shell script.
func (l *lab) pod(script string) *corev1.Pod {
	l.pods++
	grace := int64(5)
	name := fmt.Sprintf("pod-%d", l.pods)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(l.node + "-" + name)},
		Spec: corev1.PodSpec{
			NodeName: l.node, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "app", Image: l.imageName, Command: []string{"/bin/sh", "-c", script},
				TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}},
		},
	}
}

// running is a pod with its container in the runtime.
type running struct {
	*lab
	pod       *corev1.Pod
	sandbox   string
	container string
}

func (l *lab) run(ctx context.Context, pod *corev1.Pod, change func(*cri.ContainerInput)) *running {
	l.t.Helper()
	group, err := l.cgroups.Create(pod)
	if err != nil {
		l.t.Fatal(err)
	}
	dns, _ := cri.DNS{ClusterServers: []string{"10.96.0.10"}, ClusterDomain: "cluster.local"}.Config(pod)
	config, err := cri.SandboxConfig(pod, cri.SandboxInput{
		LogDir: filepath.Join(l.dir, "logs"), CgroupParent: strings.TrimPrefix(group, l.cgroupRoot), DNS: dns, ClusterDomain: "cluster.local", Host: l.host,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	r := &running{lab: l, pod: pod}
	if r.sandbox, err = l.runtime.RunSandbox(ctx, &cri.SandboxSpec{Config: config}); err != nil {
		l.t.Fatal(err)
	}
	c := &pod.Spec.Containers[0]
	in := cri.ContainerInput{Image: l.image, Command: c.Command, Host: l.host, HostsFile: r.file("hosts"), TerminationLog: r.file("message")}
	name, domain, err := cri.Hostname(pod, "cluster.local")
	if err != nil {
		l.t.Fatal(err)
	}
	r.write("hosts", cri.HostsFile(pod, r.state(ctx).Sandboxes[0].IPs, name, domain, nil))
	r.write("message", nil)
	if change != nil {
		change(&in)
	}
	spec, err := cri.ContainerConfig(pod, c, in)
	if err != nil {
		l.t.Fatal(err)
	}
	if r.container, err = l.runtime.CreateContainer(ctx, r.sandbox, &cri.ContainerSpec{Config: spec, Sandbox: config}); err != nil {
		l.t.Fatal(err)
	}
	if err := l.runtime.StartContainer(ctx, r.container); err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (r *running) file(name string) string {
	return filepath.Join(r.dir, string(r.pod.UID)+"-"+name)
}

func (r *running) write(name string, content []byte) {
	r.t.Helper()
	if err := os.WriteFile(r.file(name), content, 0o666); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) state(ctx context.Context) cri.Pod {
	r.t.Helper()
	p, err := r.runtime.Pod(ctx, r.pod.UID)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// ended waits for the runtime's event that the container has ended.
func (r *running) ended(ctx context.Context, events <-chan cri.Event) cri.Container {
	r.t.Helper()
	for {
		if c, ok := r.state(ctx).Container("app"); ok && c.State == cri.Exited {
			return c
		}
		select {
		case <-events:
		case <-ctx.Done():
			r.t.Fatal("the container did not end")
		}
	}
}

func (r *running) log() string {
	r.t.Helper()
	data, err := os.ReadFile(r.state(r.t.Context()).Containers[0].LogPath)
	if err != nil {
		r.t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			lines = append(lines, fields[3])
		}
	}
	return strings.Join(lines, "")
}

func TestRealRuntime(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	events, err := l.runtime.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Type != cri.Resync {
		t.Errorf("first event %+v", e)
	}
	for _, tt := range []struct {
		name string
		test func(context.Context, *testing.T, *lab, <-chan cri.Event)
	}{
		{"status", realStatus}, {"images", realImages}, {"a container that ends", realEnd}, {"exec and streams", realExec},
		{"security context", realSecurity}, {"limits", realLimits}, {"out of memory", realOOM}, {"what is gone", realGone},
		{"stop with grace", realStop}, {"sandbox that dies", realSandbox},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t = t
			tt.test(ctx, t, l, events)
		})
	}
	l.t = t
	cancel()
	for range events {
	}
}

func realStatus(ctx context.Context, t *testing.T, l *lab, _ <-chan cri.Event) {
	s, err := l.runtime.Status(ctx)
	if err != nil || !s.Runtime.OK || !s.Network.OK || len(s.Handlers) == 0 {
		t.Errorf("Status = %+v, %v", s, err)
	}
	v, err := l.runtime.Version(ctx)
	if err != nil || v.Name != "containerd" || strings.HasPrefix(v.Version, "v") || v.API != "v1" {
		t.Errorf("Version = %+v, %v", v, err)
	}
	if d, err := l.runtime.CgroupDriver(ctx); err != nil || d != "cgroupfs" {
		t.Errorf("CgroupDriver = %q, %v", d, err)
	}
}

func realImages(ctx context.Context, t *testing.T, l *lab, _ <-chan cri.Event) {
	if img, err := l.runtime.ImageStatus(ctx, "nobody/has-this:v0"); err != nil || img.ID != "" {
		t.Errorf("ImageStatus of a missing image = %+v, %v", img, err)
	}
	_, err := l.runtime.PullImage(ctx, "nobody/has-this:v0", nil, nil)
	if !errors.Is(err, cri.ErrImagePull) || strings.Contains(cri.Message(err), "rpc error") {
		t.Errorf("PullImage of a missing image: %v", err)
	}
	all, err := l.runtime.Images(ctx)
	if err != nil || len(all) == 0 || l.image.Size == 0 {
		t.Errorf("Images = %d, %v; ours %+v", len(all), err, l.image)
	}
	disks, _, err := l.runtime.ImageFileSystems(ctx)
	if err != nil || len(disks) == 0 || disks[0].Mountpoint == "" {
		t.Errorf("ImageFileSystems = %+v, %v", disks, err)
	}
	l.run(ctx, l.pod("sleep 600"), nil)
	if used, err := l.runtime.UsedImages(ctx); err != nil || !used[l.image.ID] {
		t.Errorf("UsedImages = %v, %v; want %s among them", used, err, l.image.ID)
	}
}

func realEnd(ctx context.Context, t *testing.T, l *lab, events <-chan cri.Event) {
	r := l.run(ctx, l.pod("echo out; echo err >&2; echo -n bye > /dev/termination-log; exit 3"), nil)
	c := r.ended(ctx, events)
	if c.ExitCode != 3 || c.Reason != "Error" || c.Attempt != 0 || c.SandboxID != r.sandbox || c.StartedAt.IsZero() || !c.FinishedAt.After(c.StartedAt) {
		t.Errorf("container %+v", c)
	}
	if c.Hash != cri.HashContainer(&r.pod.Spec.Containers[0]) || *c.TerminationGracePeriod != 5 || c.Image == "" || c.ImageID != l.image.ID {
		t.Errorf("container %+v", c)
	}
	if data, err := os.ReadFile(c.TerminationMessageFile); err != nil || string(data) != "bye" {
		t.Errorf("termination message %q, %v", data, err)
	}
	if got := r.log(); !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") {
		t.Errorf("log %q", got)
	}
	want := filepath.Join(cri.PodLogDir(filepath.Join(l.dir, "logs"), r.pod), "app", "0.log")
	if c.LogPath != want {
		t.Errorf("log path %s, want %s", c.LogPath, want)
	}
}

func realExec(ctx context.Context, t *testing.T, l *lab, _ <-chan cri.Event) {
	r := l.run(ctx, l.pod("sleep 600"), nil)
	res, err := l.runtime.ExecSync(ctx, r.container, []string{"sh", "-c", "echo a; echo b >&2; exit 4"}, 10*time.Second)
	if err != nil || res.ExitCode != 4 || string(res.Stdout) != "a\n" || string(res.Stderr) != "b\n" {
		t.Errorf("ExecSync = %+v, %v", res, err)
	}
	if _, err = l.runtime.ExecSync(ctx, r.container, []string{"sleep", "60"}, time.Second); !errors.Is(err, cri.ErrTimeout) {
		t.Errorf("ExecSync that takes too long: %v", err)
	}
	if _, err = l.runtime.ExecSync(ctx, r.container, []string{"no-such-command"}, time.Second); err == nil || errors.Is(err, cri.ErrTimeout) {
		t.Errorf("ExecSync of nothing: %v", err)
	}
	if u, err := l.runtime.ExecURL(ctx, r.container, []string{"sh"}, cri.StreamOptions{Stdin: true, Stdout: true, TTY: true}); err != nil || u.Host == "" {
		t.Errorf("ExecURL = %v, %v", u, err)
	}
	if u, err := l.runtime.AttachURL(ctx, r.container, cri.StreamOptions{Stdout: true, Stderr: true}); err != nil || u.Host == "" {
		t.Errorf("AttachURL = %v, %v", u, err)
	}
	if u, err := l.runtime.PortForwardURL(ctx, r.sandbox, []int32{80}); err != nil || u.Host == "" {
		t.Errorf("PortForwardURL = %v, %v", u, err)
	}
	old := r.state(ctx).Containers[0].LogPath
	if err := os.Rename(old, old+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.runtime.ReopenLog(ctx, r.container); err != nil {
		t.Errorf("ReopenLog: %v", err)
	}
	if _, err := os.Stat(old); err != nil {
		t.Errorf("no new log: %v", err)
	}
	stats, err := l.runtime.PodStats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		if s.PodRef.UID == string(r.pod.UID) && (len(s.Containers) != 1 || s.Containers[0].Memory == nil || s.Containers[0].CPU == nil || s.CPU == nil) {
			t.Errorf("stats %+v", s)
		}
	}
	if len(stats) == 0 {
		t.Error("no stats")
	}
}

func realSecurity(ctx context.Context, t *testing.T, l *lab, events <-chan cri.Event) {
	no, yes, user, group, fs := false, true, int64(1234), int64(5678), int64(4321)
	pod := l.pod(`id -u; id -g; id -G; grep -E "^(NoNewPrivs|Seccomp|CapBnd|CapEff):" /proc/self/status
touch /x 2>/dev/null && echo writable; cat /etc/hosts | tail -2; cat /etc/resolv.conf; hostname; echo $A $B
cat /proc/sys/kernel/shm_rmid_forced; cat /mnt/file; touch /mnt/new 2>/dev/null && echo writable; true`)
	pod.Spec.Subdomain, pod.Spec.SetHostnameAsFQDN = "sub", &yes
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"alias"}}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		FSGroup: &fs, SupplementalGroups: []int64{99}, Sysctls: []corev1.Sysctl{{Name: "kernel.shm_rmid_forced", Value: "1"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsUser: &user, RunAsGroup: &group, RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	mnt := filepath.Join(l.dir, "mnt")
	if err := os.MkdirAll(mnt, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mnt, "file"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := l.run(ctx, pod, func(in *cri.ContainerInput) {
		in.Env = []cri.EnvVar{{Name: "A", Value: "x"}, {Name: "B", Value: "y z"}}
		in.Mounts = []cri.Mount{{Name: "mnt", ContainerPath: "/mnt", HostPath: mnt, ReadOnly: true}}
	})
	if c := r.ended(ctx, events); c.ExitCode != 0 || c.User == nil || c.User.Linux.UID != user {
		t.Errorf("container %+v", c)
	}
	got := r.log()
	for _, want := range []string{
		"1234\n5678\n", "5678 99 4321\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
		"192.0.2.1\talias\n", "nameserver 10.96.0.10\n", "search ns.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5\n",
		pod.Name + ".sub.ns.svc.cluster.local\n", "x y z\n", "1\ncontent\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the container's log lacks %q", want)
		}
	}
	if strings.Contains(got, "writable") {
		t.Error("the container wrote where it must not")
	}
	if t.Failed() {
		t.Logf("log:\n%s", got)
	}
}

func realLimits(ctx context.Context, t *testing.T, l *lab, _ <-chan cri.Event) {
	pod := l.pod("sleep 600")
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
	}
	r := l.run(ctx, pod, nil)
	c := r.state(ctx).Containers[0]
	if c.Resources == nil || *c.Resources != (cri.Resources{CPURequestMilli: 100, CPULimitMilli: 500, MemoryLimit: 64 << 20}) {
		t.Errorf("resources %+v", c.Resources)
	}
	res, err := l.runtime.ExecSync(ctx, r.container, []string{"cat", "/proc/1/oom_score_adj"}, 10*time.Second)
	if err != nil || strings.TrimSpace(string(res.Stdout)) != fmt.Sprint(cri.OOMScoreAdj(pod, &pod.Spec.Containers[0], l.host.Memory)) {
		t.Errorf("oom_score_adj %q, %v", res.Stdout, err)
	}
	if uids, err := l.cgroups.Pods(); err != nil || len(uids) == 0 {
		t.Errorf("control groups %v, %v", uids, err)
	}
	if !l.host.CgroupV2 {
		dir := filepath.Join(cgroup.DefaultRoot, "memory", l.cgroups.Name(pod.UID))
		if data, err := os.ReadFile(filepath.Join(dir, r.container, "memory.limit_in_bytes")); err != nil || strings.TrimSpace(string(data)) != "67108864" {
			t.Errorf("the container's group inside the pod's: %q, %v", data, err)
		}
	}
	update := cri.ContainerResources(pod, &pod.Spec.Containers[0], l.host)
	update.MemoryLimitInBytes, update.MemorySwapLimitInBytes = 96<<20, 96<<20
	if err := l.runtime.UpdateContainer(ctx, r.container, update); err != nil {
		t.Fatal(err)
	}
	if c := r.state(ctx).Containers[0]; c.Resources.MemoryLimit != 96<<20 {
		t.Errorf("after an update the limit is %d", c.Resources.MemoryLimit)
	}
}

func realOOM(ctx context.Context, t *testing.T, l *lab, events <-chan cri.Event) {
	pod := l.pod("exec tail /dev/zero")
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
	if c := l.run(ctx, pod, nil).ended(ctx, events); c.ExitCode != 137 || c.Reason != "OOMKilled" {
		t.Errorf("exit code %d, reason %s", c.ExitCode, c.Reason)
	}
}

func realGone(ctx context.Context, t *testing.T, l *lab, _ <-chan cri.Event) {
	const nobody = "0000000000000000000000000000000000000000000000000000000000000000"
	if _, err := l.runtime.ContainerStatus(ctx, nobody); !errors.Is(err, cri.ErrNotFound) {
		t.Errorf("ContainerStatus: %v", err)
	}
	for name, err := range map[string]error{
		"StopContainer": l.runtime.StopContainer(ctx, nobody, 0), "RemoveContainer": l.runtime.RemoveContainer(ctx, nobody),
		"StopSandbox": l.runtime.StopSandbox(ctx, nobody), "RemoveSandbox": l.runtime.RemoveSandbox(ctx, nobody),
		"RemoveImage": l.runtime.RemoveImage(ctx, "nobody/has-this:v0"),
	} {
		if err != nil {
			t.Errorf("%s of what is gone: %v", name, err)
		}
	}
	if err := l.runtime.StartContainer(ctx, nobody); !errors.Is(err, cri.ErrNotFound) {
		t.Errorf("StartContainer: %v", err)
	}
	if _, err := l.runtime.CreateContainer(ctx, nobody, &cri.ContainerSpec{Config: &runtimeapi.ContainerConfig{}, Sandbox: &runtimeapi.PodSandboxConfig{}}); err == nil {
		t.Error("CreateContainer in nothing succeeded")
	}
}

func realStop(ctx context.Context, t *testing.T, l *lab, events <-chan cri.Event) {
	polite := l.run(ctx, l.pod(`trap "exit 7" TERM; echo ready > /dev/termination-log; while :; do sleep 0.1; done`), nil)
	for data := []byte{}; len(data) == 0; {
		res, err := l.runtime.ExecSync(ctx, polite.container, []string{"cat", "/dev/termination-log"}, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		data = res.Stdout
	}
	if err := l.runtime.StopContainer(ctx, polite.container, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if c := polite.ended(ctx, events); c.ExitCode != 7 {
		t.Errorf("a container that ends by itself has exit code %d", c.ExitCode)
	}
	deaf := l.run(ctx, l.pod(`trap "" TERM; while :; do sleep 1; done`), nil)
	begun := time.Now()
	if err := l.runtime.StopContainer(ctx, deaf.container, time.Second); err != nil {
		t.Fatal(err)
	}
	if c := deaf.ended(ctx, events); c.ExitCode != 137 || time.Since(begun) < time.Second {
		t.Errorf("a container that ignores its signal has exit code %d after %s", c.ExitCode, time.Since(begun))
	}
	if err := l.runtime.RemoveContainer(ctx, deaf.container); err != nil {
		t.Fatal(err)
	}
	if p := deaf.state(ctx); len(p.Containers) != 0 || len(p.Sandboxes) != 1 {
		t.Errorf("after removal %+v", p)
	}
}

func realSandbox(ctx context.Context, t *testing.T, l *lab, _ <-chan cri.Event) {
	r := l.run(ctx, l.pod("sleep 600"), nil)
	if s := r.state(ctx).Sandboxes[0]; !s.Ready || len(s.IPs) == 0 || s.Labels[cri.NodeLabel] != l.node {
		t.Errorf("sandbox %+v", s)
	}
	if err := l.runtime.StopSandbox(ctx, r.sandbox); err != nil {
		t.Fatal(err)
	}
	p := r.state(ctx)
	if p.Sandboxes[0].Ready || p.Containers[0].State != cri.Exited {
		t.Errorf("after stopping the sandbox %+v", p)
	}
	if err := l.runtime.RemoveSandbox(ctx, r.sandbox); err != nil {
		t.Fatal(err)
	}
	if p := r.state(ctx); len(p.Sandboxes)+len(p.Containers) != 0 {
		t.Errorf("after removing the sandbox %+v", p)
	}
	if err := l.cgroups.Remove(ctx, r.pod.UID); err != nil {
		t.Errorf("the control group stays: %v", err)
	}
}
