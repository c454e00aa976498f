package cri

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func TestQOSClass(t *testing.T) {
	none, both := list("", ""), list("1", "1Gi")
	for _, tt := range []struct {
		name string
		spec corev1.PodSpec
		want corev1.PodQOSClass
	}{
		{"nothing", corev1.PodSpec{Containers: []corev1.Container{container("a", none, none)}}, corev1.PodQOSBestEffort},
		{"zero is nothing", corev1.PodSpec{Containers: []corev1.Container{container("a", list("0", "0"), none)}}, corev1.PodQOSBestEffort},
		{"all equal", corev1.PodSpec{Containers: []corev1.Container{container("a", both, both), container("b", both, both)}}, corev1.PodQOSGuaranteed},
		{"memory alone", corev1.PodSpec{Containers: []corev1.Container{container("a", list("", "1Gi"), list("", "1Gi"))}}, corev1.PodQOSBurstable},
		{"requests smaller", corev1.PodSpec{Containers: []corev1.Container{container("a", list("500m", "1Gi"), both)}}, corev1.PodQOSBurstable},
		{"one without", corev1.PodSpec{Containers: []corev1.Container{container("a", both, both), container("b", none, none)}}, corev1.PodQOSBurstable},
		{"init counts", corev1.PodSpec{InitContainers: []corev1.Container{container("i", none, none)}, Containers: []corev1.Container{container("a", both, both)}}, corev1.PodQOSBurstable},
		{"pod level", corev1.PodSpec{Resources: &corev1.ResourceRequirements{Requests: both, Limits: both}, Containers: []corev1.Container{container("a", none, none)}}, corev1.PodQOSGuaranteed},
	} {
		if got := QOSClass(&corev1.Pod{Spec: tt.spec}); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := QOSClass(&corev1.Pod{Status: corev1.PodStatus{QOSClass: corev1.PodQOSGuaranteed}}); got != corev1.PodQOSGuaranteed {
		t.Errorf("status is ignored: %s", got)
	}
}

func TestOOMScoreAdj(t *testing.T) {
	const memory = 10 << 30
	none := list("", "")
	always := corev1.ContainerRestartPolicyAlways
	sidecar := container("sidecar", list("", "1Gi"), none)
	sidecar.RestartPolicy = &always
	idle := container("idle", none, none)
	big, small := container("big", list("", "5Gi"), none), container("small", list("", "2Gi"), none)
	for _, tt := range []struct {
		name string
		pod  corev1.Pod
		c    corev1.Container
		want int64
	}{
		{"best effort", corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{idle}}}, idle, 1000},
		{"half of the memory", corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{big}}}, big, 500},
		{"no request beside others", corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{big, idle}}}, idle, 999},
		{"more than there is", corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{container("x", list("", "20Gi"), none)}}},
			container("x", list("", "20Gi"), none), 3},
		{"sidecar outlives its containers", corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{sidecar}, Containers: []corev1.Container{big, small}}}, sidecar, 800},
		{"injected sidecar in a best-effort pod", corev1.Pod{
			Spec: corev1.PodSpec{InitContainers: []corev1.Container{sidecar}, Containers: []corev1.Container{idle}}, Status: corev1.PodStatus{QOSClass: corev1.PodQOSBestEffort}}, sidecar, 900},
		{"guaranteed stays so beside an injected sidecar", corev1.Pod{
			Spec:   corev1.PodSpec{InitContainers: []corev1.Container{sidecar}, Containers: []corev1.Container{container("g", list("1", "1Gi"), list("1", "1Gi"))}},
			Status: corev1.PodStatus{QOSClass: corev1.PodQOSGuaranteed}}, container("g", list("1", "1Gi"), list("1", "1Gi")), -997},
	} {
		if got := OOMScoreAdj(&tt.pod, &tt.c, memory); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestCPUConversions(t *testing.T) {
	for _, tt := range []struct{ milli, shares, quota int64 }{
		{0, 2, 0}, {1, 2, 1000}, {10, 10, 1000}, {100, 102, 10000}, {1000, 1024, 100000}, {2500, 2560, 250000}, {1000000, 262144, 100000000},
	} {
		if got := MilliToShares(tt.milli); got != tt.shares {
			t.Errorf("MilliToShares(%d) = %d, want %d", tt.milli, got, tt.shares)
		}
		if got := MilliToQuota(tt.milli); got != tt.quota {
			t.Errorf("MilliToQuota(%d) = %d, want %d", tt.milli, got, tt.quota)
		}
	}
	for milli := int64(3); milli < 200000; milli += 7 {
		if got := sharesToMilli(MilliToShares(milli)); got != milli {
			t.Fatalf("%d milli come back as %d", milli, got)
		}
	}
}
