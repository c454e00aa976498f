// Command csi measures what the CSI driver costs on an ordinary node: claims until they are bound, pods until they run with a Mount Pod
// that must be started or is shared, many of both at once, memory, and requests to the API server. It writes docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/bench"
	"github.com/sidemount/sidemount/test/lab"
)

func main() {
	var s sizes
	flag.IntVar(&s.rounds, "n", 8, "claims, and pods of each kind, one after another")
	flag.IntVar(&s.claims, "claims", 100, "claims at once")
	flag.IntVar(&s.pods, "pods", 100, "pods at once; a node takes 110, with those of the cluster")
	out := flag.String("out", "docs/benchmarks.md", "file to write the section into")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if err := run(ctx, s, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench-csi:", err)
		os.Exit(1)
	}
}

// sizes are how much is measured.
type sizes struct{ rounds, claims, pods int }

// class is the StorageClass of all claims.
const class = "bench"

// benchmark is a cluster with the driver on it.
type benchmark struct {
	sizes
	lab       *lab.Lab
	chart     *lab.Chart
	namespace string
	// plain is a directory of the host, for the pods to compare with.
	plain string
}

func run(ctx context.Context, s sizes, out string) (err error) {
	l, err := lab.Start(ctx, "bench-csi", os.Stderr)
	if err != nil {
		return err
	}
	b := &benchmark{sizes: s, lab: l, namespace: "bench-csi", plain: filepath.Join(lab.Data, "bench-csi")}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		err = errors.Join(err, l.Stop(ending), os.RemoveAll(b.plain))
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	report, err := b.measure(ctx)
	if err != nil {
		return err
	}
	fmt.Println(report)
	return bench.Write(out, "bench-csi", report)
}

// measure runs one part after the other, because each would disturb the others.
func (b *benchmark) measure(ctx context.Context) (string, error) {
	var report strings.Builder
	fmt.Fprintf(&report, "## Volumes on an ordinary node (`make bench-csi`)\n\n%s. JuiceFS, its metadata and its objects in one Redis on the same node. The driver was installed\nby the chart; images are present. All times are as a watch of the API sees them, medians unless it says otherwise.\n",
		time.Now().UTC().Format("2006-01-02"))
	for _, part := range []struct {
		what string
		run  func(context.Context) (string, error)
	}{{"claims", b.claimTimes}, {"pods", b.podTimes}, {"many claims", b.manyClaims}, {"many pods", b.manyPods}} {
		fmt.Fprintln(os.Stderr, "bench-csi:", part.what)
		section, err := part.run(ctx)
		if err != nil {
			return "", fmt.Errorf("%s: %w", part.what, err)
		}
		report.WriteString("\n" + section)
	}
	return report.String(), nil
}

// prepare installs the driver, and uses each thing once, so that images are there and the file system is formatted.
func (b *benchmark) prepare(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}
	if _, err := b.lab.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := b.until(ctx, "ServiceAccount default", func() (bool, error) {
		_, err := b.lab.Client.CoreV1().ServiceAccounts(b.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, ignoreNotFound(err)
	}); err != nil {
		return err
	}
	redis, err := b.lab.StartRedis(ctx, b.namespace)
	if err != nil {
		return err
	}
	b.chart, err = b.lab.InstallChart(ctx, lab.Values{"storageClasses": []lab.Values{lab.StorageClass(class, redis.JuiceFS(class, 0))}})
	if err != nil {
		return err
	}
	for _, name := range []string{coldClaim, sharedClaim} {
		if _, err := b.bind(ctx, name); err != nil {
			return fmt.Errorf("first claims: %w", err)
		}
	}
	for _, k := range b.kinds() {
		if _, err := b.start(ctx, k.pod("first-"+k.key)); err != nil {
			return fmt.Errorf("first pod of kind %s: %w", k.key, err)
		}
	}
	return b.mountPodsAre(ctx, 0)
}

// until polls every 50 ms for at most two minutes.
func (b *benchmark) until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
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

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
