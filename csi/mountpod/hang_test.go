package mountpod_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
)

func TestReleaseDoesNotWaitForADeadClient(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Grace = time.Second })
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	n.Pods.Signal(s.Pod, syscall.SIGSTOP)
	began := time.Now()
	n.Condition(filepath.Join(n.Dir, "kubelet", "one"))
	release(t, n, "one")
	if took := time.Since(began); took > time.Second {
		t.Errorf("released after %s", took)
	}
	eventually(t, "session and pod are gone", gone(n, s))
}

func TestPodsThatEndAgainAndAgainAreMadeLessOften(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Patience = 4 * time.Second })
	n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus {
		return &corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfmemory"}
	})
	_, err := n.Acquire(within(t, soon), request(n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one"))
	if err == nil {
		t.Fatal("a volume without a pod is served")
	}
	// At once, then after 1 and 2 seconds.
	if created := n.Pods.Calls().Create; created < 3 || created > 5 {
		t.Errorf("%d pods in 4 s", created)
	}
	if left := len(n.Pods.All()); left > 2 {
		t.Errorf("%d pods are left", left)
	}
}

func TestMetrics(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	acquire(t, n, m, "one")
	acquire(t, n, m, "two")
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(n.Keeper); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"sidemount_mountpod_shares": 1, "sidemount_mountpod_references": 2, "sidemount_mountpod_acquire_seconds": 2,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
