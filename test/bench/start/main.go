// Command start measures how long a pod takes from its creation in the API to "Running" in the API, on the virtual node and on the
// kubelet's beside it, and how much memory the virtual node and a sidecar take. It writes docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sidemount/sidemount/test/bench"
	"github.com/sidemount/sidemount/test/lab"
)

const forever = "trap 'exit 0' TERM; while :; do sleep 1; done"

func main() {
	rounds := flag.Int("n", 20, "pods of each kind, started in turn")
	out := flag.String("out", "docs/benchmarks.md", "file to write the section into")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if err := run(ctx, *rounds, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench-start:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, out string) (err error) {
	l, err := lab.Start(ctx, "bench", os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		err = errors.Join(err, l.Stop(ending), lab.RemoveData("bench"))
	}()
	b := &benchmark{lab: l, namespace: "bench"}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	starts, err := b.starts(ctx, rounds)
	if err != nil {
		return err
	}
	memory, err := b.memory(ctx)
	if err != nil {
		return err
	}
	report := starts + "\n" + memory
	fmt.Println(report)
	return bench.Write(out, "bench-start", report)
}

type benchmark struct {
	lab       *lab.Lab
	namespace string
}

// prepare makes the namespace and the volume, and starts one pod of each kind so that images are there and the file system is formatted.
func (b *benchmark) prepare(ctx context.Context) error {
	_, err := b.lab.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := b.until(ctx, "ServiceAccount default", func() bool {
		_, err := b.lab.Client.CoreV1().ServiceAccounts(b.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	}); err != nil {
		return err
	}
	volume, err := lab.JuiceFS(b.namespace, "data")
	if err != nil {
		return err
	}
	if err := volume.Create(ctx, b.lab); err != nil {
		return err
	}
	for _, k := range kinds() {
		if _, err := b.start(ctx, k.pod("warm-"+k.key)); err != nil {
			return fmt.Errorf("first pod of kind %s: %w", k.key, err)
		}
	}
	return nil
}

type kind struct {
	key, title string
	pod        func(name string) *corev1.Pod
}

func kinds() []kind {
	return []kind{
		{"plain", "(a) plain pod, virtual node", func(n string) *corev1.Pod { return lab.Pod(n, forever) }},
		{"volume", "(b) pod with a JuiceFS volume, virtual node", func(n string) *corev1.Pod { return lab.Pod(n, forever, lab.Claim("data")) }},
		{"kubelet", "(c) plain pod, ordinary node's kubelet", func(n string) *corev1.Pod { return lab.Pod(n, forever, lab.OnOrdinaryNode) }},
	}
}

// starts starts the kinds in turn, so that a noisy minute hits all of them.
func (b *benchmark) starts(ctx context.Context, rounds int) (string, error) {
	took := map[string][]time.Duration{}
	for i := range rounds {
		for _, k := range kinds() {
			d, err := b.start(ctx, k.pod(fmt.Sprintf("%s-%d", k.key, i)))
			if err != nil {
				return "", fmt.Errorf("%s pod %d: %w", k.key, i, err)
			}
			took[k.key] = append(took[k.key], d)
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, rounds)
	}
	base := bench.Median(took["kubelet"])
	var s strings.Builder
	fmt.Fprintf(&s, "## Start of a pod (`make bench-start`)\n\n%s, %d pods of each kind, one after another in turn. From the request that\ncreates it to the first status with a running application container, as a watch sees it. Images are present.\n\n", time.Now().UTC().Format("2006-01-02"), rounds)
	fmt.Fprintf(&s, "| | median ms | p99 ms | median as a ratio to (c) |\n|---|---|---|---|\n")
	for _, k := range kinds() {
		m := bench.Median(took[k.key])
		fmt.Fprintf(&s, "| %s | %d | %d | %.2f |\n", k.title, m.Milliseconds(), bench.Percentile(took[k.key], 99).Milliseconds(), float64(m)/float64(base))
	}
	fmt.Fprintf(&s, "\nA JuiceFS volume adds %d ms: (b) − (a), medians.\n", (bench.Median(took["volume"]) - bench.Median(took["plain"])).Milliseconds())
	return s.String(), nil
}

// start creates a pod, waits until it runs, removes it and waits until it is gone. It returns the time to Running.
func (b *benchmark) start(ctx context.Context, p *corev1.Pod) (time.Duration, error) {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", p.Name).String(), TimeoutSeconds: new(int64(120))})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	if err := await(w, running); err != nil {
		return 0, fmt.Errorf("wait until it runs: %w", err)
	}
	took := time.Since(began)
	if err := pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}); err != nil {
		return 0, err
	}
	if err := await(w, func(e watch.Event) bool { return e.Type == watch.Deleted }); err != nil {
		return 0, fmt.Errorf("wait until it is gone: %w", err)
	}
	return took, nil
}

func running(e watch.Event) bool {
	p, ok := e.Object.(*corev1.Pod)
	return ok && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil
}

func await(w watch.Interface, done func(watch.Event) bool) error {
	for e := range w.ResultChan() {
		if done(e) {
			return nil
		}
	}
	return errors.New("the watch ended first")
}

// until polls once every 100 ms for at most a minute.
func (b *benchmark) until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
