package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/node"
)

// parsed returns the options that a command line gives.
func parsed(t *testing.T, args ...string) *nodeOptions {
	t.Helper()
	o := &nodeOptions{}
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	o.addTo(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestNodeObjectOfFlags(t *testing.T) {
	o := parsed(t, "--node-name=vn-1", "--node-ip=10.0.0.7", "--capacity=cpu=4,memory=8Gi,pods=250", "--reserved=cpu=500m",
		"--labels=team=blue", "--taints=a=b:NoExecute,c:NoSchedule", "--port=10350", "--provider-id=acme://1")
	object, err := o.object()
	if err != nil {
		t.Fatal(err)
	}
	if err := object.Validate(); err != nil {
		t.Fatal(err)
	}
	got := node.Build(object, node.Host{CPUs: 64, MemoryBytes: 1 << 40, Architecture: "amd64"}, nil)
	if got.Status.Capacity.Cpu().Value() != 4 || got.Status.Capacity.Pods().Value() != 250 || got.Status.Allocatable.Cpu().MilliValue() != 3500 {
		t.Errorf("resources: %v %v", got.Status.Capacity, got.Status.Allocatable)
	}
	if len(got.Spec.Taints) != 2 || got.Labels["team"] != "blue" || got.Spec.ProviderID != "acme://1" {
		t.Errorf("spec: %v %v", got.Spec, got.Labels)
	}
	if got.Status.Addresses[0].Address != "10.0.0.7" || got.Status.DaemonEndpoints.KubeletEndpoint.Port != 10350 {
		t.Errorf("addresses: %v", got.Status)
	}
	if !strings.HasPrefix(got.Status.NodeInfo.KubeletVersion, kubernetesVersion+"-sidemount-") {
		t.Errorf("version: %s", got.Status.NodeInfo.KubeletVersion)
	}
}

func TestTaintsOfFlags(t *testing.T) {
	for text, want := range map[string]int{"": 1, "none": 0, "a:NoSchedule": 1} {
		var args []string
		if text != "" {
			args = []string{"--taints=" + text}
		}
		object, err := parsed(t, args...).object()
		if err != nil {
			t.Fatal(err)
		}
		if got := node.Build(object, node.Host{}, nil).Spec.Taints; len(got) != want {
			t.Errorf("--taints=%s: got %v", text, got)
		}
	}
}

func TestBadFlagsAreNamed(t *testing.T) {
	for flag, want := range map[string]string{
		"--capacity=cpu=many": "--capacity cpu=many",
		"--reserved=memory=x": "--reserved memory=x",
		"--taints=a=b":        `taint "a=b"`,
	} {
		if _, err := parsed(t, flag).object(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", flag, err, want)
		}
	}
	for _, flag := range []string{"--root-dir=relative", "--run-dir=relative", "--pod-logs-dir=relative", "--tls-cert-file=only"} {
		name, _, _ := strings.Cut(flag, "=")
		if err := parsed(t, flag).complete(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
	if _, err := setUpLogging(context.Background(), "loud", "text"); err == nil {
		t.Error("--log-level=loud: want an error")
	}
	if _, err := setUpLogging(context.Background(), "info", "xml"); err == nil {
		t.Error("--log-format=xml: want an error")
	}
}

func TestDefaultsOfTheHost(t *testing.T) {
	o := parsed(t)
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if o.nodeName != strings.ToLower(name) || filepath.Base(o.agentPath) != agentName {
		t.Errorf("got %q, %q", o.nodeName, o.agentPath)
	}
}

func TestFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("SIDEMOUNT_NODE_NAME", "from-environment")
	t.Setenv("SIDEMOUNT_PORT", "10350")
	t.Setenv("SIDEMOUNT_DRIVER_NAME", "csi.sidemount.io,csi.juicefs.com")
	o := &nodeOptions{}
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	o.addTo(flags)
	if err := flags.Parse([]string{"--port=10450"}); err != nil {
		t.Fatal(err)
	}
	if err := fromEnvironment(flags); err != nil {
		t.Fatal(err)
	}
	if o.nodeName != "from-environment" || o.port != 10450 || len(o.driverNames) != 2 {
		t.Errorf("got %q, %d, %v", o.nodeName, o.port, o.driverNames)
	}
	t.Setenv("SIDEMOUNT_CLUSTER_DNS", "10.96.0.10")
	t.Setenv("SIDEMOUNT_PARALLEL_PULLS", "several")
	if err := fromEnvironment(flags); err == nil || !strings.Contains(err.Error(), "SIDEMOUNT_PARALLEL_PULLS") {
		t.Errorf("got %v", err)
	}
}

func TestImagesOfFlags(t *testing.T) {
	if got := parsed(t).images(); len(got) != 0 {
		t.Errorf("without flags: %v", got)
	}
	if got := parsed(t, "--juicefs-image=registry/x:1").images(); got[mount.JuiceFS] != "registry/x:1" {
		t.Errorf("got %v", got)
	}
}

func TestInstallAgent(t *testing.T) {
	source, dir := filepath.Join(t.TempDir(), "agent"), filepath.Join(t.TempDir(), "bin")
	installed := filepath.Join(dir, agentName)
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(source, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := installAgent(source, dir); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	running, err := os.Open(installed)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	first, err := os.Stat(installed)
	if err != nil || first.Mode().Perm() != 0o755 {
		t.Fatalf("installed: %v %v", first, err)
	}
	write("one")
	if again, err := os.Stat(installed); err != nil || !os.SameFile(first, again) {
		t.Error("the same agent was installed twice")
	}
	write("two")
	content, err := os.ReadFile(installed)
	if err != nil || string(content) != "two" {
		t.Errorf("got %q, %v", content, err)
	}
	var old bytes.Buffer
	if _, err := old.ReadFrom(running); err != nil || old.String() != "one" {
		t.Errorf("a running agent lost its program: %q, %v", old.String(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory that sidecars see: %v, %v", entries, err)
	}
	if err := installAgent(filepath.Join(dir, "nothing"), dir); err == nil {
		t.Error("a missing agent must be an error")
	}
}

func TestAddressTowards(t *testing.T) {
	got, err := addressTowards(context.Background(), "https://127.0.0.1:6443")
	if err != nil || got != "127.0.0.1" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTTYIsTheContainersOwn(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers:     []corev1.Container{{Name: "app", TTY: true}},
		InitContainers: []corev1.Container{{Name: "init"}},
		EphemeralContainers: []corev1.EphemeralContainer{
			{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", TTY: true}},
		},
	}}
	for name, want := range map[string]bool{"app": true, "init": false, "debugger": true, "other": false} {
		if got := hasTTY(pod, name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestVersionCommand(t *testing.T) {
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs([]string{"version"})
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil || strings.TrimSpace(out.String()) != version {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
