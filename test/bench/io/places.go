package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

const imageName = "bench/load:1"

// figure is what load measured.
type figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

type benchmark struct {
	lab    *lab.Lab
	memory *memory
	// stock is the program of stock JuiceFS.
	stock string
}

const namespace = "bench-io"

// places are pods in the order of the table. All four are pods, so that they get the same share of a busy machine.
var places = []string{ours, theirs, passthrough, native}

// steps are what load can measure.
func (b *benchmark) steps(ctx context.Context) ([]string, error) {
	out, err := b.exec(ctx, native, "steps")
	return strings.Split(strings.TrimSpace(out), "\n"), err
}

// take takes a step in a place.
func (b *benchmark) take(ctx context.Context, place, step string) ([]figure, error) {
	out, err := b.exec(ctx, place, "measure", "/data", step)
	if err != nil {
		return nil, err
	}
	return parse([]byte(out))
}

func (b *benchmark) exec(ctx context.Context, place string, args ...string) (string, error) {
	return b.lab.Kubectl(ctx, append([]string{"exec", "-n", namespace, place, "--", "/load"}, args...)...)
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
	stock, err := filepath.Abs(b.stock)
	if err != nil {
		return err
	}
	image := lab.ProgramImage{Name: imageName, Package: "test/bench/io/load", Programs: []string{"fio"}, Files: []string{stock + ":/juicefs"}}
	if err := image.Push(ctx, b.lab); err != nil {
		return err
	}
	if err := b.makeNamespace(ctx); err != nil {
		return err
	}
	for _, name := range places {
		if err := b.startPod(ctx, name); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
	}
	return nil
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

// volume is a volume of the lab, but with its data in memory.
func (b *benchmark) volume(name string) (*lab.FileSystem, error) {
	dir := b.memory.path(name)
	if name == passthrough {
		files, err := lab.Passthrough(namespace, name)
		if err == nil {
			files.PV.Spec.CSI.VolumeAttributes["path"] = dir
			files.PV.Spec.CSI.VolumeAttributes["juicefs/mount-cpu-request"] = sidecarShare
		}
		return files, err
	}
	files, err := lab.JuiceFS(namespace, name)
	if err != nil {
		return nil, err
	}
	files.PV.Spec.CSI.VolumeAttributes["juicefs/mount-cpu-request"] = sidecarShare
	files.Secret.StringData["metaurl"] = "sqlite3://" + filepath.Join(dir, "meta.db")
	files.Secret.StringData["bucket"] = filepath.Join(dir, "bucket") + "/"
	files.Secret.StringData["format-options"] = "trash-days=0"
	files.PV.Spec.CSI.VolumeAttributes["juicefs/host-path"] = dir
	files.PV.Spec.MountOptions = clientOptions
	return files, nil
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
