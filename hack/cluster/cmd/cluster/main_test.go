package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/build"
	"github.com/sidemount/sidemount/hack/cluster/internal/cgroup"
	"github.com/sidemount/sidemount/hack/cluster/internal/cluster"
	"github.com/sidemount/sidemount/hack/cluster/internal/process"
	"golang.org/x/sys/unix"
)

// TestMain lets the test program be what the clusters that it starts call back: its hidden subcommands.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		for _, c := range hidden() {
			if c.name == os.Args[1] {
				main()
				return
			}
		}
	}
	os.Exit(m.Run())
}

// options skips the test where no cluster can run, and takes the cluster away when the test is over.
func options(t *testing.T, suffix string) cluster.UpOptions {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: namespaces, mounts and cgroups need it")
	}
	p := places{}
	o, err := p.resolve()
	if err != nil {
		t.Fatal(err)
	}
	if missing := build.Missing(o.Bin); missing != "" {
		t.Skipf("%s is missing: run `cluster build` first", missing)
	}
	name := fmt.Sprintf("test-%s-%d", suffix, os.Getpid())
	t.Cleanup(func() {
		if err := cluster.Down(context.Background(), name, t.Output()); err != nil {
			t.Error(err)
		}
	})
	return cluster.UpOptions{
		Name: name,
		Dir:  filepath.Join(cluster.DefaultDir, name),
		Bin:  o.Bin,
	}
}

func up(t *testing.T, o cluster.UpOptions) *cluster.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s, err := cluster.Up(ctx, o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func down(t *testing.T, s *cluster.State) {
	t.Helper()
	if err := cluster.Down(t.Context(), s.Name, t.Output()); err != nil {
		t.Fatal(err)
	}
	checkNothingRemains(t, s)
}

// checkNothingRemains looks for itself, without the help of what is tested.
func checkNothingRemains(t *testing.T, s *cluster.State) {
	t.Helper()
	if pids := process.InNamespace(s.PIDNamespace, s.Machine); len(pids) > 0 {
		t.Errorf("processes remain: %v", pids)
	}
	for _, c := range s.Components {
		if c.Alive() {
			t.Errorf("pid %d remains: %v", c.PID, c.Argv)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), s.Name) {
		t.Errorf("mounts remain:\n%s", mounts)
	}
	cgroups, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if left := cgroups.Remaining(s.Cgroup); len(left) > 0 {
		t.Errorf("cgroups remain: %v", left)
	}
	if _, err := os.Stat("/sys/class/net/" + s.Device); err == nil {
		t.Errorf("link %s remains", s.Device)
	}
	if _, err := os.Stat(s.Dir); err == nil {
		t.Errorf("directory %s remains", s.Dir)
	}
	if _, err := cluster.Load(s.Name); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("the cluster is still listed: %v", err)
	}
}

func kill(t *testing.T, p process.Ref) {
	t.Helper()
	if err := p.Stop(t.Context(), unix.SIGKILL, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func kubectl(t *testing.T, s *cluster.State, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG=", "KUBECACHEDIR="+t.TempDir())
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String()
}

// hostSettings are those that a kubelet and a kube-proxy would change, and the packet filter.
func hostSettings(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, file := range []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward",
		"kernel/keys/root_maxkeys", "net/netfilter/nf_conntrack_max"} {
		b, _ := os.ReadFile("/proc/sys/" + file)
		fmt.Fprintf(&all, "%s=%s", file, b)
	}
	rules, err := exec.CommandContext(t.Context(), "iptables-save").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(rules)) {
		if strings.HasPrefix(line, "-A") { // not the counters and comments
			all.WriteString(line)
		}
	}
	return all.String()
}

const podManifest = `
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  containers:
  - name: main
    image: busybox:1.36
    command: [sh, -c, "hostname; sleep 1000"]
    resources: {limits: {memory: 64Mi, cpu: 100m}}
    securityContext: {seccompProfile: {type: RuntimeDefault}}
`

func TestUpRunsPodsAndDownLeavesNothingBehind(t *testing.T) {
	o := options(t, "full")
	before := hostSettings(t)
	o.Nodes, o.Virtual = 1, 1
	s := up(t, o)

	statuses, err := cluster.Check(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range statuses {
		if st.Err != nil {
			t.Errorf("%s is not healthy: %v", st.Name, st.Err)
		}
	}
	kubectl(t, s, podManifest, "apply", "-f", "-")
	kubectl(t, s, "", "wait", "--for=condition=Ready", "pod/limited", "--timeout=60s")
	if got := kubectl(t, s, "", "logs", "limited"); got != "limited\n" {
		t.Errorf("log of the pod is %q; want its host name", got)
	}

	o.Nodes = 2
	grown := up(t, o)
	if grown.Machine != s.Machine || len(grown.Nodes) != 3 {
		t.Errorf("second up made machine %v with nodes %v; want machine %v with one more node", grown.Machine, grown.NodeNames(), s.Machine)
	}
	if got := hostSettings(t); got != before {
		t.Errorf("settings of the host have changed from\n%s\nto\n%s", before, got)
	}
	down(t, grown)
}

func TestUpAndDownMendAClusterWhoseMachineWasKilled(t *testing.T) {
	o := options(t, "killed")
	o.Virtual = 1
	s := up(t, o)
	kill(t, s.Machine)
	again := up(t, o)
	if again.Machine == s.Machine {
		t.Error("up took the dead machine for a live one")
	}
	kill(t, again.Components["etcd"].Ref)
	mended := up(t, o)
	if old, now := again.Components["etcd"].PID, mended.Components["etcd"].PID; old == now {
		t.Errorf("etcd was killed and has still pid %d", now)
	}
	down(t, mended)
}
