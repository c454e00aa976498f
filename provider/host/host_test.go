package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

func request(pod *corev1.Pod) provider.CreateRequest {
	return provider.CreateRequest{
		Pod: pod, Container: &pod.Spec.Containers[0], Sandbox: cri.Sandbox{ID: "sandbox-1", Attempt: 2}, Attempt: 3,
		Image: "sha256:app", PodIPs: []string{"10.244.0.9"},
	}
}

func TestContainerGetsWhatThePartsSay(t *testing.T) {
	e := &endpoint{}
	host, _ := machine(t, e, nil)
	pod := somePod()
	ctx := context.Background()
	if err := host.SetUp(ctx, pod); err != nil {
		t.Fatal(err)
	}
	if _, err := host.CreateContainer(ctx, request(pod)); err != nil {
		t.Fatal(err)
	}
	config := e.container.Config
	env := map[string]string{}
	for _, v := range config.Envs {
		env[v.Key] = string(v.Value)
	}
	if env["IP"] != "10.244.0.9" || env["HOST"] != "10.0.0.7" {
		t.Errorf("environment: %v", env)
	}
	if got := strings.Join(config.Command, " "); got != "serve --ip=10.244.0.9" {
		t.Errorf("command: %q", got)
	}
	if config.Metadata.Attempt != 3 || config.Image.Image != "sha256:app" || e.container.SandboxConfig.Metadata.Attempt != 2 {
		t.Errorf("attempts and image: %v %v %v", config.Metadata, config.Image, e.container.SandboxConfig.Metadata)
	}
	mounts := map[string]string{}
	for _, m := range config.Mounts {
		mounts[m.ContainerPath] = m.HostPath
	}
	if mounts["/own"] != "/srv" {
		t.Errorf("mounts: %v", mounts)
	}
	hosts, err := os.ReadFile(mounts["/etc/hosts"])
	if err != nil || !strings.Contains(string(hosts), "10.244.0.9\tweb\n") {
		t.Errorf("hosts file: %v\n%s", err, hosts)
	}
	info, err := os.Stat(mounts["/dev/termination-log"])
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("termination log: %v %v", info, err)
	}
}

func TestASidecarsNamesAreNotThePodsAuthors(t *testing.T) {
	for _, injected := range []bool{true, false} {
		e := &endpoint{}
		host, _ := machine(t, e, nil)
		pod := somePod()
		pod.Spec.HostAliases = []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"redis.storage"}}}
		pod.Spec.DNSPolicy, pod.Spec.DNSConfig = corev1.DNSNone, &corev1.PodDNSConfig{
			Nameservers: []string{"127.0.0.1"}, Searches: []string{"evil.example"}, Options: []corev1.PodDNSConfigOption{{Name: "rotate"}},
		}
		r := request(pod)
		r.Injected = injected
		if _, err := host.CreateContainer(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for _, m := range e.container.Config.Mounts {
			if content, err := os.ReadFile(m.HostPath); err == nil {
				files[m.ContainerPath] = string(content)
			}
		}
		if got := strings.Contains(files["/etc/hosts"], "redis.storage"); got == injected || !strings.Contains(files["/etc/hosts"], "web") {
			t.Errorf("injected %v: hosts file\n%s", injected, files["/etc/hosts"])
		}
		names := files["/etc/resolv.conf"]
		if !injected && names != "" {
			t.Errorf("the application has another resolver than the pod's:\n%s", names)
		}
		if injected && (!strings.HasPrefix(names, "nameserver 10.96.0.10\n") || strings.Contains(names, "evil") || !strings.Contains(names, "rotate")) {
			t.Errorf("the sidecar resolves by\n%s", names)
		}
	}
}

func TestContainerOfAPodThatAnotherProcessHasSetUp(t *testing.T) {
	host, _ := machine(t, &endpoint{}, nil)
	if _, err := host.CreateContainer(context.Background(), request(somePod())); err != nil {
		t.Error(err)
	}
}

func TestFaultsOfTheSpecification(t *testing.T) {
	host, _ := machine(t, &endpoint{}, nil)
	missing := somePod()
	missing.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "nothing"}}}}
	_, err := host.CreateContainer(context.Background(), request(missing))
	if !errors.Is(err, provider.ErrContainerConfig) || err.Error() != `secret "nothing" not found` {
		t.Errorf("missing secret: %v", err)
	}
	root := somePod()
	nonRoot := true
	root.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &nonRoot}
	_, err = host.CreateContainer(context.Background(), request(root))
	if !errors.Is(err, provider.ErrContainerConfig) || !strings.Contains(err.Error(), "image will run as root") {
		t.Errorf("root image: %v", err)
	}
}

func TestSandboxIsToldAboutNames(t *testing.T) {
	e := &endpoint{}
	host, _ := machine(t, e, nil)
	if _, err := host.RunSandbox(context.Background(), somePod(), 1); err != nil {
		t.Fatal(err)
	}
	dns := e.sandbox.Config.DnsConfig
	if e.sandbox.Config.Metadata.Attempt != 1 || len(dns.Servers) != 1 || dns.Servers[0] != "10.96.0.10" || dns.Searches[0] != "shop.svc.cluster.local" {
		t.Errorf("sandbox: %v", e.sandbox.Config)
	}
}

func TestNetworkThatIsNotThereIsNotThePodsFault(t *testing.T) {
	host, _ := machine(t, &endpoint{noNetwork: true}, nil)
	_, err := host.RunSandbox(context.Background(), somePod(), 0)
	if !errors.Is(err, provider.ErrRuntimeNotReady) {
		t.Errorf("got %v", err)
	}
	own := somePod()
	own.Spec.HostNetwork = true
	if _, err := host.RunSandbox(context.Background(), own, 0); err == nil || errors.Is(err, provider.ErrRuntimeNotReady) {
		t.Errorf("with host networking: got %v", err)
	}
}

func TestRuntimeClass(t *testing.T) {
	e := &endpoint{}
	host, _ := machine(t, e, nil)
	class := "kata"
	pod := somePod()
	pod.Spec.RuntimeClassName = &class
	if _, err := host.RunSandbox(context.Background(), pod, 0); err == nil {
		t.Error("a node without classes must refuse one")
	}
	host.o.RuntimeHandler = func(_ context.Context, name string) (string, error) { return "handler-of-" + name, nil }
	if _, err := host.RunSandbox(context.Background(), pod, 0); err != nil {
		t.Fatal(err)
	}
	if e.sandbox.RuntimeHandler != "handler-of-kata" {
		t.Errorf("handler: %q", e.sandbox.RuntimeHandler)
	}
}

func TestPullWithThePodsSecrets(t *testing.T) {
	e := &endpoint{}
	host, recorder := machine(t, e, secrets{"registry": {
		Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"registry.example.com":{"username":"u","password":"p"}}}`)},
	}})
	pod := somePod()
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}, {Name: "nothing"}}
	pulled, err := host.PullImage(context.Background(), pod, "registry.example.com/app:1")
	if err != nil || pulled.ID != "sha256:app" || pulled.Size != 4711 {
		t.Fatalf("pull: %+v, %v", pulled, err)
	}
	if got := e.pulls[0].Auth; got.GetUsername() != "u" || got.GetPassword() != "p" {
		t.Error("the pull had not the secret's credentials")
	}
	select {
	case event := <-recorder.Events:
		if !strings.Contains(event, "nothing") {
			t.Errorf("event: %s", event)
		}
	default:
		t.Error("a missing pull secret must be told")
	}
}

func TestImagePresent(t *testing.T) {
	host, _ := machine(t, &endpoint{}, nil)
	if id, ok, err := host.ImagePresent(context.Background(), "app:1"); id != "sha256:app" || !ok || err != nil {
		t.Errorf("present: %q %v %v", id, ok, err)
	}
	if _, ok, err := host.ImagePresent(context.Background(), "absent"); ok || err != nil {
		t.Errorf("absent: %v %v", ok, err)
	}
	if _, _, err := host.ImagePresent(context.Background(), "Not A Name"); !errors.Is(err, cri.ErrInvalidImageName) {
		t.Errorf("invalid: %v", err)
	}
}

func TestLastWordsOutliveTheirFile(t *testing.T) {
	host, _ := machine(t, &endpoint{}, nil)
	dir := t.TempDir()
	file, log := filepath.Join(dir, "message"), filepath.Join(dir, "0.log")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "no space left")
	write(log, "2026-01-01T00:00:00Z stdout F last line\n")
	dead := cri.Container{ID: "c-1", State: cri.Exited, ExitCode: 1, TerminationMessageFile: file, LogPath: log}
	ctx := context.Background()
	if got := host.message(ctx, dead); got != "no space left" {
		t.Errorf("message: %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := host.message(ctx, dead); got != "no space left" {
		t.Errorf("message after its file: %q", got)
	}
	fallback := cri.Container{ID: "c-2", State: cri.Exited, ExitCode: 1, LogPath: log, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError}
	if got := host.message(ctx, fallback); got != "last line\n" && got != "last line" {
		t.Errorf("message from the log: %q", got)
	}
	fallback.ID, fallback.ExitCode = "c-3", 0
	if got := host.message(ctx, fallback); got != "" {
		t.Errorf("message of a success: %q", got)
	}
	trap := filepath.Join(dir, "trap")
	if err := os.Symlink("/etc/passwd", trap); err != nil {
		t.Fatal(err)
	}
	if got := host.message(ctx, cri.Container{ID: "c-4", ExitCode: 1, TerminationMessageFile: trap}); got != "" {
		t.Errorf("a link was followed: %q", got)
	}
}

func TestRemoveContainerTakesAllOfItsLogs(t *testing.T) {
	host, _ := machine(t, &endpoint{}, nil)
	dir := t.TempDir()
	for _, name := range []string{"0.log", "0.log.20260101-000000", "0.log.20260101-000000.gz", "10.log", "1.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.RemoveContainer(context.Background(), cri.Container{ID: "c-1", LogPath: filepath.Join(dir, "0.log")}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := host.RemoveContainer(context.Background(), cri.Container{ID: "c-2", LogPath: filepath.Join(dir, "gone", "0.log")}); err != nil {
		t.Error(err)
	}
}

func TestTearDownRemovesThePodsFiles(t *testing.T) {
	host, _ := machine(t, &endpoint{}, nil)
	pod := somePod()
	ctx := context.Background()
	if err := host.SetUp(ctx, pod); err != nil {
		t.Fatal(err)
	}
	if _, err := host.CreateContainer(ctx, request(pod)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := host.TearDown(ctx, pod.UID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(host.podDir(pod.UID)); !os.IsNotExist(err) {
		t.Errorf("directory of the pod: %v", err)
	}
	if err := host.RemoveLogs(ctx, &corev1.Pod{}); err == nil {
		t.Error("logs of nobody must not be removed")
	}
}
