package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/bench"
	"github.com/sidemount/sidemount/test/lab"
)

const (
	forever = "trap 'exit 0' TERM; while :; do sleep 1; done"
	// Claims of the pods that start their Mount Pod, and of those that find one.
	coldClaim, sharedClaim = "cold", "shared"
	// holder is the pod that keeps the shared Mount Pod.
	holder = "holder"
)

type kind struct {
	key, title string
	pod        func(name string) *corev1.Pod
}

func (b *benchmark) kinds() []kind {
	return []kind{
		{"plain", "(a) a hostPath volume", b.plainPod},
		{"shared", "(b) a volume whose Mount Pod is there", func(n string) *corev1.Pod { return lab.Pod(n, forever, lab.OnOrdinaryNode, lab.Claim(sharedClaim)) }},
		{"cold", "(c) a volume without a Mount Pod yet", func(n string) *corev1.Pod { return lab.Pod(n, forever, lab.OnOrdinaryNode, lab.Claim(coldClaim)) }},
	}
}

func (b *benchmark) plainPod(name string) *corev1.Pod {
	source := &corev1.HostPathVolumeSource{Path: b.plain, Type: ptr.To(corev1.HostPathDirectoryOrCreate)}
	return lab.Pod(name, forever, lab.OnOrdinaryNode, lab.Volume("data", "/data", corev1.VolumeSource{HostPath: source}))
}

// outcome is what the pods of a kind took.
type outcome struct {
	starts []time.Duration
	// requests are the node service's to the API server, per pod.
	requests []float64
}

// podTimes starts the kinds in turn, so that a noisy minute hits all of them.
func (b *benchmark) podTimes(ctx context.Context) (string, error) {
	if err := b.hold(ctx); err != nil {
		return "", err
	}
	all := map[string]*outcome{}
	first, err := b.figures(ctx)
	if err != nil {
		return "", err
	}
	last := first
	for i := range b.rounds {
		for _, k := range b.kinds() {
			took, err := b.start(ctx, k.pod(fmt.Sprintf("%s-%d", k.key, i)))
			if err != nil {
				return "", fmt.Errorf("%s pod %d: %w", k.key, i, err)
			}
			// Only the holder's is left.
			if err := b.mountPodsAre(ctx, 1); err != nil {
				return "", err
			}
			now, err := b.figures(ctx)
			if err != nil {
				return "", err
			}
			if all[k.key] == nil {
				all[k.key] = &outcome{}
			}
			all[k.key].starts = append(all[k.key].starts, took)
			all[k.key].requests = append(all[k.key].requests, now.requests-last.requests)
			last = now
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, b.rounds)
	}
	return b.podReport(all, last.since(first)), b.letGo(ctx)
}

func (b *benchmark) podReport(all map[string]*outcome, spent figures) string {
	base := bench.Median(all["plain"].starts)
	var s strings.Builder
	fmt.Fprintf(&s, "### Pods, from their creation to a running container\n\n| %d pods of each kind, in turn, on the ordinary node | median ms | p99 ms | more than (a), ms | as a ratio to (a) | API requests of the node service |\n|---|---|---|---|---|---|\n", b.rounds)
	for _, k := range b.kinds() {
		o := all[k.key]
		m := bench.Median(o.starts)
		fmt.Fprintf(&s, "| %s | %d | %d | %d | %.2f | %.0f |\n", k.title, m.Milliseconds(), bench.Percentile(o.starts, 99).Milliseconds(),
			(m - base).Milliseconds(), float64(m)/float64(base), median(o.requests))
	}
	fmt.Fprintf(&s, "\nAPI requests are counted from before the pod's creation until it and its Mount Pod have gone, those for Events included.\n")
	fmt.Fprintf(&s, "Inside the node service, on the mean, a publish waited %.1f ms for a client that was there, and %.0f ms for one to be started.\n",
		1000*spent.sharedSeconds/max(spent.shared, 1), 1000*spent.coldSeconds/max(spent.cold, 1))
	return s.String()
}

// start creates a pod, waits until it runs, removes it and waits until it is gone. It returns the time to Running.
func (b *benchmark) start(ctx context.Context, p *corev1.Pod) (time.Duration, error) {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	took, err := timed(ctx, pods, named(p.Name), func() error {
		_, err := pods.Create(ctx, p, metav1.CreateOptions{})
		return err
	}, running)
	if err != nil {
		return 0, fmt.Errorf("until it runs: %w", err)
	}
	if err := b.remove(ctx, p.Name); err != nil {
		return 0, fmt.Errorf("until it is gone: %w", err)
	}
	return took, nil
}

func (b *benchmark) remove(ctx context.Context, name string) error {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	_, err := timed(ctx, pods, named(name), func() error {
		return pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(1))})
	}, removed)
	return err
}

// hold keeps a Mount Pod for the claim that is shared.
func (b *benchmark) hold(ctx context.Context) error {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	_, err := timed(ctx, pods, named(holder), func() error {
		_, err := pods.Create(ctx, lab.Pod(holder, forever, lab.OnOrdinaryNode, lab.Claim(sharedClaim)), metav1.CreateOptions{})
		return err
	}, running)
	return errors.Join(err, b.mountPodsAre(ctx, 1))
}

func (b *benchmark) letGo(ctx context.Context) error {
	return errors.Join(b.remove(ctx, holder), b.mountPodsAre(ctx, 0))
}

// mountPodsAre waits until there are so many Mount Pods.
func (b *benchmark) mountPodsAre(ctx context.Context, n int) error {
	return b.until(ctx, fmt.Sprintf("%d Mount Pods", n), func() (bool, error) {
		all, err := b.chart.MountPods(ctx)
		return len(all[lab.OrdinaryNode]) == n, err
	})
}

func running(e watch.Event) bool {
	p, ok := e.Object.(*corev1.Pod)
	return ok && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil
}
