package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// Names of the places.
const (
	ours        = "juicefs"
	theirs      = "stock"
	passthrough = "passthrough"
	native      = "native"
)

// clientOptions are those of both JuiceFS clients. Blocks are cached in memory, because one place has no other cache.
var clientOptions = []string{"cache-dir=memory", "cache-size=256", "buffer-size=128"}

// figure is what load measured.
type figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// place is where load runs.
type place struct {
	name    string
	measure func(ctx context.Context) ([]figure, error)
}

type benchmark struct {
	lab    *lab.Lab
	memory *memory
	// stock is the program of stock JuiceFS, load the one that measures.
	stock, load string
	mount       *stockMount
}

const namespace = "bench-io"

var image = lab.ProgramImage{Name: "bench/load:1", Package: "test/bench/io/load", Programs: []string{"fio"}}

// places are in the order of the table.
func (b *benchmark) places() []place {
	return []place{
		{ours, func(ctx context.Context) ([]figure, error) { return b.inPod(ctx, ours) }},
		{theirs, func(ctx context.Context) ([]figure, error) { return b.onHost(ctx, b.mount.point) }},
		{passthrough, func(ctx context.Context) ([]figure, error) { return b.inPod(ctx, passthrough) }},
		{native, func(ctx context.Context) ([]figure, error) { return b.onHost(ctx, b.memory.path(native)) }},
	}
}

func (b *benchmark) inPod(ctx context.Context, pod string) ([]figure, error) {
	out, err := b.lab.Kubectl(ctx, "exec", "-n", namespace, pod, "--", "/load", "measure", "/data")
	if err != nil {
		return nil, err
	}
	return parse([]byte(out))
}

func (b *benchmark) onHost(ctx context.Context, dir string) ([]figure, error) {
	cmd := exec.CommandContext(ctx, b.load, "measure", dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return parse(out)
}

func parse(out []byte) ([]figure, error) {
	var all []figure
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("read figures: %w", err)
	}
	return all, nil
}

// prepare makes all four places.
func (b *benchmark) prepare(ctx context.Context) error {
	b.load = b.memory.path("load")
	if err := b.lab.BuildProgram(ctx, image.Package, b.load); err != nil {
		return err
	}
	if err := image.Push(ctx, b.lab); err != nil {
		return err
	}
	if err := b.makeNamespace(ctx); err != nil {
		return err
	}
	for _, name := range []string{ours, passthrough} {
		if err := b.startPod(ctx, name); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
	}
	if err := os.Mkdir(b.memory.path(native), 0o755); err != nil {
		return err
	}
	var err error
	b.mount, err = mountStock(ctx, b.stock, b.memory.path(theirs))
	return err
}

func (b *benchmark) makeNamespace(ctx context.Context) error {
	_, err := b.lab.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return until(ctx, "ServiceAccount default", func() (bool, error) {
		_, err := b.lab.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
}

// startPod makes a volume in memory, and a pod that waits to be measured in.
func (b *benchmark) startPod(ctx context.Context, name string) error {
	files, err := b.volume(name)
	if err != nil {
		return err
	}
	if err := files.Create(ctx, b.lab); err != nil {
		return err
	}
	const user = 65534 // whose a passthrough client's files are
	pod := lab.Pod(name, "", lab.Claim(name), lab.Change(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(user)), RunAsGroup: ptr.To(int64(user))}
		p.Spec.Containers[0].Image = image.Name
		p.Spec.Containers[0].Command = []string{"/load", "idle"}
	}))
	pods := b.lab.Client.CoreV1().Pods(namespace)
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	return until(ctx, "pod "+name, func() (bool, error) {
		p, err := pods.Get(ctx, name, metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodRunning, err
	})
}

// volume is a volume of the lab, but with its data in memory.
func (b *benchmark) volume(name string) (*lab.FileSystem, error) {
	dir := b.memory.path(name)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 65534, 65534)); err != nil {
		return nil, err
	}
	if name == passthrough {
		files, err := lab.Passthrough(namespace, name)
		if err == nil {
			files.PV.Spec.CSI.VolumeAttributes["path"] = dir
		}
		return files, err
	}
	files, err := lab.JuiceFS(namespace, name)
	if err != nil {
		return nil, err
	}
	files.Secret.StringData["metaurl"] = "sqlite3://" + filepath.Join(dir, "meta.db")
	files.Secret.StringData["bucket"] = filepath.Join(dir, "bucket") + "/"
	files.Secret.StringData["format-options"] = "trash-days=0"
	files.PV.Spec.CSI.VolumeAttributes["juicefs/host-path"] = dir
	files.PV.Spec.MountOptions = clientOptions
	return files, nil
}

// end gives back what prepare has made outside of the cluster.
func (b *benchmark) end() error {
	var err error
	if b.mount != nil {
		err = b.mount.end()
	}
	for _, name := range []string{ours, passthrough} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(lab.Data, namespace+"-"+name)))
	}
	return err
}

// until polls once every 100 ms for at most a minute.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
