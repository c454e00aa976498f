package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Where InstallChart puts the chart.
const (
	ChartRelease   = "sidemount"
	ChartNamespace = "sidemount"
)

// chartTimeout is how long helm waits for what it has installed to become ready.
const chartTimeout = "4m"

// imageTag is the tag of the images that the cluster is brought up with (hack/cluster.sh), which is no release's.
const imageTag = "dev"

// Values are a chart's values.
type Values = map[string]any

// Chart is an installed release of charts/sidemount with this tree's images.
type Chart struct {
	Release, Namespace string

	lab *Lab
}

// InstallChart installs the chart and waits until its pods are ready: release and namespace "sidemount", the images of this tree, small
// requests, and what values say. It builds what it needs: helm and the CSI sidecars take minutes the first time.
func (l *Lab) InstallChart(ctx context.Context, values Values) (*Chart, error) {
	if err := l.PushChartImages(ctx); err != nil {
		return nil, err
	}
	return l.InstallRelease(ctx, ChartRelease, values)
}

// InstallRelease installs the chart, with images that PushChartImages has pushed, as a release in a namespace of the same name. Two drivers on
// a node need two names and two directories for their state, which values must say.
func (l *Lab) InstallRelease(ctx context.Context, release string, values Values) (*Chart, error) {
	c := &Chart{Release: release, Namespace: release, lab: l}
	return c, c.run(ctx, values, "install", c.Release, c.source(), "--create-namespace", "--wait", "--timeout", chartTimeout)
}

// InstallNodeService installs the chart without its controller: volumes are made by hand then. It needs no image but those that the
// cluster was brought up with.
func (l *Lab) InstallNodeService(ctx context.Context) (*Chart, error) {
	if err := l.build(ctx, "hack/helm/build.sh"); err != nil {
		return nil, err
	}
	c := &Chart{Release: ChartRelease, Namespace: ChartNamespace, lab: l}
	values := Values{"controller": Values{"enabled": false}}
	return c, c.run(ctx, values, "install", c.Release, c.source(), "--create-namespace", "--wait", "--timeout", chartTimeout)
}

// PushChartImages builds helm and the images of the chart and pushes them to the cluster's registry.
func (l *Lab) PushChartImages(ctx context.Context) error {
	for _, script := range []string{"hack/helm/build.sh", "hack/build-csi.sh", "hack/build-images.sh"} {
		if err := l.build(ctx, script); err != nil {
			return err
		}
	}
	images, err := filepath.Glob(filepath.Join(l.root, ".cache", "images", "*.tar"))
	if err != nil {
		return err
	}
	_, err = l.Cluster(ctx, append([]string{"image", "push", "--name", l.Name}, images...)...)
	return err
}

func (l *Lab) build(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(l.root, script))
	cmd.Env = append(os.Environ(), "BIN="+l.bin, "IMAGE_TAG="+imageTag)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", script, err)
	}
	return nil
}

// InstallSnapshotCRDs makes VolumeSnapshots known to the cluster; the chart's values snapshots.enabled and snapshots.controller need them.
func (l *Lab) InstallSnapshotCRDs(ctx context.Context) error {
	crds := filepath.Join(l.root, ".cache", "csi-crds")
	for _, kind := range []string{"volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"} {
		if _, err := l.Kubectl(ctx, "apply", "--server-side", "-f", filepath.Join(crds, "snapshot.storage.k8s.io_"+kind+".yaml")); err != nil {
			return err
		}
		if _, err := l.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "crd/"+kind+".snapshot.storage.k8s.io"); err != nil {
			return err
		}
	}
	return nil
}

// Upgrade changes the release to other values and waits until its pods are ready. Values that are not given are the chart's own again.
func (c *Chart) Upgrade(ctx context.Context, values Values) error {
	return c.run(ctx, values, "upgrade", c.Release, c.source(), "--wait", "--timeout", chartTimeout)
}

// Rollback goes back to a revision; the installation is revision 1.
func (c *Chart) Rollback(ctx context.Context, revision int) error {
	_, err := c.helm(ctx, "rollback", c.Release, strconv.Itoa(revision), "--wait", "--timeout", chartTimeout)
	return err
}

// Test runs the chart's own tests and returns helm's summary. (helm's --logs asks for the logs of the claim, too, and fails.)
func (c *Chart) Test(ctx context.Context) (string, error) {
	return c.helm(ctx, "test", c.Release, "--timeout", chartTimeout)
}

// Uninstall removes the release and waits until its objects are gone. It fails while a volume is mounted.
func (c *Chart) Uninstall(ctx context.Context) error {
	_, err := c.helm(ctx, "uninstall", c.Release, "--wait", "--timeout", chartTimeout)
	return err
}

// run executes a helm command with values, which may be secret and therefore travel in a file.
func (c *Chart) run(ctx context.Context, values Values, args ...string) error {
	dir, err := os.MkdirTemp("", "sidemount-values-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i, v := range []Values{defaults(), values} {
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write values: %w", err)
		}
		file := filepath.Join(dir, strconv.Itoa(i)+".yaml") // JSON is YAML
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			return err
		}
		args = append(args, "--values", file)
	}
	_, err = c.helm(ctx, args...)
	return err
}

// defaults are the values of a small machine whose images have been built from this tree.
func defaults() Values {
	small := Values{"requests": Values{"cpu": "10m", "memory": "32Mi"}}
	image := Values{"tag": imageTag, "pullPolicy": "Always"}
	return Values{
		"images":     Values{"sidemount": image, "juicefs": image, "csiSidecars": image},
		"log":        Values{"level": "debug"},
		"controller": Values{"resources": small, "sidecarResources": small, "worker": Values{"resources": small}},
		"node":       Values{"resources": small},
	}
}

func (c *Chart) helm(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.lab.Binary("helm"), append(args, "--namespace", c.Namespace, "--kubeconfig", c.lab.Kubeconfig)...)
	// No repository, plugin or registry login of the person who runs the tests.
	home := filepath.Join(os.TempDir(), "sidemount-helm")
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return run(cmd)
}

func (c *Chart) source() string { return filepath.Join(c.lab.root, "charts", "sidemount") }

// StorageClass is an entry of the value storageClasses whose Secret the chart makes. Mount Pods and sidecars ask for little.
func StorageClass(name string, secret map[string]string) Values {
	return Values{
		"name": name, "secret": Values{"data": secret},
		"parameters": Values{"juicefs/mount-cpu-request": "10m", "juicefs/mount-memory-request": "64Mi"},
	}
}

// MountPods are the names of the driver's Mount Pods, on each node.
func (c *Chart) MountPods(ctx context.Context) (map[string][]string, error) {
	pods, err := c.lab.Client.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=sidemount-mount"})
	if err != nil {
		return nil, err
	}
	names := map[string][]string{}
	for _, p := range pods.Items {
		names[p.Spec.NodeName] = append(names[p.Spec.NodeName], p.Name)
	}
	return names, nil
}
