package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// manyPods starts pods at once, with a hostPath volume and then with one shared volume, and measures the Mount Pod below them.
func (b *benchmark) manyPods(ctx context.Context) (string, error) {
	plain, err := b.crowd(ctx, "crowd-plain", b.plainPod)
	if err != nil {
		return "", err
	}
	if err := errors.Join(b.disperse(ctx, "crowd-plain"), b.hold(ctx)); err != nil {
		return "", err
	}
	idle, err := b.footprint(ctx)
	if err != nil {
		return "", err
	}
	first, err := b.figures(ctx)
	if err != nil {
		return "", err
	}
	shared, err := b.crowd(ctx, "crowd-shared", func(n string) *corev1.Pod {
		return lab.Pod(n, forever, lab.OnOrdinaryNode, lab.Claim(sharedClaim))
	})
	if err != nil {
		return "", err
	}
	// Who shares must not have got anything of its own.
	if err := b.mountPodsAre(ctx, 1); err != nil {
		return "", err
	}
	used, err := b.footprint(ctx)
	if err != nil {
		return "", err
	}
	last, err := b.figures(ctx)
	if err != nil {
		return "", err
	}
	spent := last.since(first)
	var s strings.Builder
	fmt.Fprintf(&s, "### %d pods at once\n\n| created → all run | s | as a ratio |\n|---|---|---|\n", b.pods)
	fmt.Fprintf(&s, "| hostPath volumes | %.1f | 1.00 |\n| one volume, one Mount Pod | %.1f | %.2f |\n", plain.Seconds(), shared.Seconds(), shared.Seconds()/plain.Seconds())
	fmt.Fprintf(&s, "\nThe node service made %.2f API requests per pod of the latter, and a publish waited %.1f ms for the client, on the mean.\n",
		spent.requests/float64(b.pods), 1000*spent.sharedSeconds/max(spent.shared, 1))
	fmt.Fprintf(&s, "\n### Resident memory of a Mount Pod, MiB\n\n| | one user | %d users |\n|---|---|---|\n", b.pods+1)
	fmt.Fprintf(&s, "| agent | %.1f | %.1f |\n| idle JuiceFS client | %.1f | %.1f |\n", idle.agent, used.agent, idle.client, used.client)
	return s.String(), errors.Join(b.disperse(ctx, "crowd-shared"), b.letGo(ctx))
}

// crowd starts pods at once and returns the time until all of them run.
func (b *benchmark) crowd(ctx context.Context, label string, pod func(name string) *corev1.Pod) (time.Duration, error) {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	up := map[string]bool{}
	took, err := timed(ctx, pods, metav1.ListOptions{LabelSelector: label}, func() error {
		var group errgroup.Group
		group.SetLimit(hands)
		for i := range b.pods {
			group.Go(func() error {
				p := pod(fmt.Sprintf("%s-%d", label, i))
				p.Labels = map[string]string{label: "many"}
				// What is to be found out is how long they take, not how many fit.
				p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
				_, err := pods.Create(ctx, p, metav1.CreateOptions{})
				return err
			})
		}
		return group.Wait()
	}, func(e watch.Event) bool {
		if running(e) {
			up[e.Object.(*corev1.Pod).Name] = true
		}
		return len(up) == b.pods
	})
	if err != nil {
		return 0, fmt.Errorf("%d of %d pods of %s run: %w", len(up), b.pods, label, err)
	}
	return took, nil
}

// disperse removes the pods of a crowd and waits until they are gone.
func (b *benchmark) disperse(ctx context.Context, label string) error {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	all := metav1.ListOptions{LabelSelector: label}
	gone := 0
	_, err := timed(ctx, pods, all, func() error {
		return pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(1))}, all)
	}, func(e watch.Event) bool {
		if removed(e) {
			gone++
		}
		return gone == b.pods
	})
	if err != nil {
		return fmt.Errorf("%d of %d pods of %s are gone: %w", gone, b.pods, label, err)
	}
	return nil
}

// footprint is the resident memory of the two processes of a Mount Pod, in MiB.
type footprint struct{ agent, client float64 }

// footprint measures the only Mount Pod that there is.
func (b *benchmark) footprint(ctx context.Context) (footprint, error) {
	names, err := b.chart.MountPods(ctx)
	if err != nil {
		return footprint{}, err
	}
	if len(names[lab.OrdinaryNode]) != 1 {
		return footprint{}, fmt.Errorf("Mount Pods of %s are %v, want one", lab.OrdinaryNode, names[lab.OrdinaryNode])
	}
	p, err := b.lab.Client.CoreV1().Pods(b.chart.Namespace).Get(ctx, names[lab.OrdinaryNode][0], metav1.GetOptions{})
	if err != nil {
		return footprint{}, err
	}
	pids, err := lab.Processes(p.UID, "sidemount-juicefs")
	if err != nil {
		return footprint{}, err
	}
	if len(pids) != 2 {
		return footprint{}, fmt.Errorf("%d processes serve Mount Pod %s, want an agent and a client", len(pids), p.Name)
	}
	agents, err := lab.Processes(p.UID, "sidemount-agent run")
	if err != nil {
		return footprint{}, err
	}
	var f footprint
	for _, pid := range pids {
		mib, err := resident(pid)
		if err != nil {
			return footprint{}, err
		}
		if len(agents) == 1 && pid == agents[0] {
			f.agent = mib
		} else {
			f.client = mib
		}
	}
	return f, nil
}

// resident is a process's VmRSS in MiB.
func resident(pid int) (float64, error) {
	status, err := lab.Status(pid)
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseFloat(strings.TrimSuffix(status["VmRSS"], " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("resident memory of process %d: %w", pid, err)
	}
	return kib / 1024, nil
}
