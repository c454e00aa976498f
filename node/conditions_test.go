package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func find(t *testing.T, conditions []corev1.NodeCondition, kind corev1.NodeConditionType) corev1.NodeCondition {
	t.Helper()
	for _, c := range conditions {
		if c.Type == kind {
			return c
		}
	}
	t.Fatalf("no condition %s in %v", kind, conditions)
	return corev1.NodeCondition{}
}

func TestConditionsOf(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	down := Facts{Runtime: errors.New("container runtime is down"), Network: errors.New("cni plugin not initialized")}
	for name, tc := range map[string]struct {
		facts   Facts
		kind    corev1.NodeConditionType
		status  corev1.ConditionStatus
		reason  string
		message string
	}{
		"ready":         {Facts{}, corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "ready"},
		"not ready":     {down, corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", "[container runtime is down, cni plugin not initialized]"},
		"network":       {down, corev1.NodeNetworkUnavailable, corev1.ConditionTrue, "RuntimeNetworkNotReady", "cni"},
		"network fine":  {Facts{}, corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "RuntimeNetworkReady", "ready"},
		"memory":        {Facts{Memory: "too little"}, corev1.NodeMemoryPressure, corev1.ConditionTrue, "KubeletHasInsufficientMemory", "too little"},
		"memory fine":   {Facts{}, corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "sufficient"},
		"disk":          {Facts{Disk: "too full"}, corev1.NodeDiskPressure, corev1.ConditionTrue, "KubeletHasDiskPressure", "too full"},
		"disk fine":     {Facts{}, corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "no disk"},
		"processes":     {Facts{Processes: "few"}, corev1.NodePIDPressure, corev1.ConditionTrue, "KubeletHasInsufficientPID", "few"},
		"pressure only": {Facts{Memory: "too little"}, corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "ready"},
	} {
		t.Run(name, func(t *testing.T) {
			got := find(t, ConditionsOf(nil, tc.facts, at), tc.kind)
			if got.Status != tc.status || got.Reason != tc.reason || !strings.Contains(got.Message, tc.message) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestTransitionTimeMovesOnlyWithTheStatus(t *testing.T) {
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	then, later := first.Add(time.Minute), first.Add(2*time.Minute)
	a := ConditionsOf(nil, Facts{}, first)
	b := ConditionsOf(a, Facts{}, then)
	c := ConditionsOf(b, Facts{Runtime: errors.New("gone")}, later)
	if got := find(t, b, corev1.NodeReady); !got.LastTransitionTime.Time.Equal(first) || !got.LastHeartbeatTime.Time.Equal(then) {
		t.Errorf("unchanged: %+v", got)
	}
	if got := find(t, c, corev1.NodeReady); !got.LastTransitionTime.Time.Equal(later) {
		t.Errorf("changed: %+v", got)
	}
	if !sameConditions(a, b) || sameConditions(b, c) {
		t.Error("heartbeats must not count as a change, a status must")
	}
}

// steadyHealth answers the same each time.
type steadyHealth struct{ runtime, network error }

func (h steadyHealth) Health(context.Context) (error, error) { return h.runtime, h.network }

// hangingHealth answers only when it is given up.
type hangingHealth struct{}

func (hangingHealth) Health(ctx context.Context) (error, error) {
	<-ctx.Done()
	return ctx.Err(), nil
}

func fakeRoot(t *testing.T, available, threads string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"proc/meminfo":                "MemTotal: 1048576 kB\nMemAvailable: " + available + " kB\n",
		"proc/loadavg":                "0.1 0.1 0.1 1/" + threads + " 77\n",
		"proc/sys/kernel/pid_max":     "32768\n",
		"proc/sys/kernel/threads-max": "100000\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestChecksSeePressureAndHoldIt(t *testing.T) {
	c := &checker{
		root: fakeRoot(t, "1024", "32000"), dir: t.TempDir(), health: steadyHealth{}, timeout: time.Second,
		thresholds: Thresholds{DiskFraction: 1e-9, InodesFraction: 1e-9}.withDefaults(), held: map[string]shortage{},
	}
	start := time.Now()
	facts := c.facts(context.Background(), start)
	if facts.Memory == "" || facts.Processes == "" || facts.Runtime != nil || facts.Network != nil {
		t.Fatalf("got %+v", facts)
	}
	c.root = fakeRoot(t, "1000000", "100")
	if facts := c.facts(context.Background(), start.Add(4*time.Minute)); facts.Memory == "" {
		t.Error("pressure forgotten before its time")
	}
	if facts := c.facts(context.Background(), start.Add(6*time.Minute)); facts.Memory != "" || facts.Processes != "" {
		t.Errorf("pressure kept after its time: %+v", facts)
	}
}

func TestDiskShortage(t *testing.T) {
	limits := Thresholds{}.withDefaults()
	for name, tc := range map[string]struct {
		d    disk
		want bool
	}{
		"enough":           {disk{Total: 100, Available: 11, Inodes: 100, InodesFree: 6}, false},
		"full":             {disk{Total: 100, Available: 9, Inodes: 100, InodesFree: 6}, true},
		"no inodes left":   {disk{Total: 100, Available: 50, Inodes: 100, InodesFree: 4}, true},
		"inodes unlimited": {disk{Total: 100, Available: 50}, false},
	} {
		if got := diskShortage(tc.d, limits) != ""; got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestSilentRuntimeIsDown(t *testing.T) {
	c := &checker{root: "/", dir: t.TempDir(), health: hangingHealth{}, timeout: 20 * time.Millisecond, held: map[string]shortage{}}
	facts := c.facts(context.Background(), time.Now())
	if facts.Runtime == nil || !strings.Contains(facts.Runtime.Error(), "no answer in 20ms") {
		t.Errorf("got %v", facts.Runtime)
	}
}
