package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/test/lab"
)

const many = 50

// memory measures resident memory: of the virtual node's process without and with pods, and of an idle sidecar's two processes.
func (b *benchmark) memory(ctx context.Context) (string, error) {
	node, err := b.nodeProcess()
	if err != nil {
		return "", err
	}
	empty, err := resident(node)
	if err != nil {
		return "", err
	}
	sidecar, err := b.sidecar(ctx)
	if err != nil {
		return "", err
	}
	if err := b.crowd(ctx); err != nil {
		return "", err
	}
	full, err := resident(node)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "### Resident memory, MiB\n\n| | MiB |\n|---|---|\n")
	fmt.Fprintf(&s, "| agent | %.1f |\n| idle JuiceFS client | %.1f |\n", sidecar.agent, sidecar.client)
	fmt.Fprintf(&s, "| `sidemount node`, no pods | %.1f |\n| `sidemount node`, %d pods | %.1f |\n", empty, many, full)
	return s.String(), nil
}

// nodeProcess finds the virtual node's process by what hack/cluster recorded.
func (b *benchmark) nodeProcess() (int, error) {
	state, err := b.lab.State()
	if err != nil {
		return 0, err
	}
	c, ok := state.Components[lab.VirtualNode+"/sidemount"]
	if !ok {
		return 0, fmt.Errorf("the cluster has no process of %s", lab.VirtualNode)
	}
	return c.PID, nil
}

type footprint struct{ agent, client float64 }

func (b *benchmark) sidecar(ctx context.Context) (footprint, error) {
	pods := b.lab.Client.CoreV1().Pods(b.namespace)
	p, err := pods.Create(ctx, lab.Pod("idle", forever, lab.Claim("data")), metav1.CreateOptions{})
	if err != nil {
		return footprint{}, err
	}
	if err := b.until(ctx, "the idle pod", func() bool { return b.isRunning(ctx, p.Name) }); err != nil {
		return footprint{}, err
	}
	agent, err := one(p.UID, "sidemount-agent run")
	if err != nil {
		return footprint{}, err
	}
	all, err := lab.Processes(p.UID, "sidemount-juicefs")
	if err != nil {
		return footprint{}, err
	}
	var f footprint
	for _, pid := range all {
		mib, err := resident(pid)
		if err != nil {
			return footprint{}, err
		}
		if pid == agent {
			f.agent = mib
		} else {
			f.client = mib
		}
	}
	return f, pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))})
}

// crowd runs many pods at once.
func (b *benchmark) crowd(ctx context.Context) error {
	for i := range many {
		p := lab.Pod(fmt.Sprintf("crowd-%d", i), forever, lab.Change(func(p *corev1.Pod) { p.Spec.Containers[0].Resources = corev1.ResourceRequirements{} }))
		if _, err := b.lab.Client.CoreV1().Pods(b.namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for i := range many {
		name := fmt.Sprintf("crowd-%d", i)
		if err := b.until(ctx, name, func() bool { return b.isRunning(ctx, name) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *benchmark) isRunning(ctx context.Context, name string) bool {
	p, err := b.lab.Client.CoreV1().Pods(b.namespace).Get(ctx, name, metav1.GetOptions{})
	return err == nil && p.Status.Phase == corev1.PodRunning
}

func one(uid types.UID, word string) (int, error) {
	pids, err := lab.Processes(uid, word)
	if err != nil {
		return 0, err
	}
	if len(pids) != 1 {
		return 0, fmt.Errorf("%d processes of pod %s match %q, want 1", len(pids), uid, word)
	}
	return pids[0], nil
}

// resident is a process's VmRSS in MiB.
func resident(pid int) (float64, error) {
	status, err := lab.Status(pid)
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseFloat(strings.TrimSuffix(status["VmRSS"], " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("resident memory of %d: %w", pid, err)
	}
	if kib == 0 {
		return 0, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return kib / 1024, nil
}
