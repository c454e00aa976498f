package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// KubernetesVersion is what the components report. Without it kubectl cannot parse the version of the server.
const KubernetesVersion = "v1.36.3"

// target is one run of `go build` in one module.
type target struct {
	name    string
	dir     string   // of the module, relative to hack/cluster
	sources []string // relative to hack/cluster
	args    []string
	outputs []string
	hint    string // what to expect when it has to run
}

// targets in the order in which they are built, the quick ones first.
func targets() []target {
	version := func(pkg string) string {
		parts := strings.Split(strings.TrimPrefix(KubernetesVersion, "v"), ".")
		return fmt.Sprintf("-X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s", pkg, KubernetesVersion, parts[0], parts[1])
	}
	return []target{{
		name: "pause", dir: ".", sources: []string{"cmd/pause"},
		args:    []string{"-ldflags", "-s -w", "./cmd/pause"},
		outputs: []string{"pause"},
	}, {
		name: "runtime", dir: "runtime", sources: []string{"runtime"},
		args:    []string{"-ldflags", "-s -w", "tool"},
		outputs: []string{"containerd", "containerd-shim-runc-v2", "ctr", "bridge", "loopback", "host-local", "portmap"},
		hint:    "containerd and CNI plugins, 2 to 3 minutes when nothing is cached",
	}, {
		name: "kube", dir: "kube", sources: []string{"kube"},
		args: []string{"-ldflags", "-s -w " + version("k8s.io/component-base/version") + " " +
			version("k8s.io/client-go/pkg/version"), "."},
		outputs: []string{"kube"},
		hint:    "Kubernetes " + KubernetesVersion + " and etcd, 5 to 10 minutes on two cores when nothing is cached",
	}}
}

// Components are the names by which the kube program is called.
var Components = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}

// goVersion is the toolchain's, as `go version` prints it.
func goVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "version").Output()
	if err != nil {
		return "", fmt.Errorf("the go command is missing or does not work: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (t target) build(ctx context.Context, o Options, goVersion string, progress io.Writer) error {
	var dirs, outputs []string
	for _, s := range t.sources {
		dirs = append(dirs, filepath.Join(o.Source, s))
	}
	for _, out := range t.outputs {
		outputs = append(outputs, filepath.Join(o.Bin, out))
	}
	sum, err := fingerprint(goVersion, t.args, dirs)
	if err != nil {
		return err
	}
	stamp := filepath.Join(o.Bin, "."+t.name+".stamp")
	if upToDate(stamp, sum, outputs) {
		return nil
	}
	if t.hint != "" {
		fmt.Fprintf(progress, "building %s (%s)\n", t.name, t.hint)
	}
	start := time.Now()
	// -trimpath, so that the same sources give the same program in every checkout.
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-o", o.Bin + "/"}, t.args...)...)
	cmd.Dir = filepath.Join(o.Source, t.dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false")
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", t.name, err)
	}
	fmt.Fprintf(progress, "built %s in %.1f s\n", t.name, time.Since(start).Seconds())
	return os.WriteFile(stamp, []byte(sum), 0o644)
}

// linkComponents makes kube answer to each of its names.
func linkComponents(bin string) error {
	for _, c := range Components {
		link := filepath.Join(bin, c)
		if to, err := os.Readlink(link); err == nil && to == "kube" {
			continue
		}
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		if err := os.Symlink("kube", link); err != nil {
			return err
		}
	}
	return nil
}
