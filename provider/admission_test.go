package provider

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestAdmit(t *testing.T) {
	pod := func(cpu, memory string, change ...func(*corev1.Pod)) *corev1.Pod {
		r := corev1.ResourceList{}
		if cpu != "" {
			r[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			r[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: r}}}}}
		for _, c := range change {
			c(p)
		}
		return p
	}
	sysctl := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
		}
	}
	port := func(ip string, n int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, HostPort: n, ContainerPort: n, Protocol: corev1.ProtocolTCP}}
		}
	}
	hostNetwork := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	node := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("3")}
	for _, tt := range []struct {
		name    string
		pod     *corev1.Pod
		others  []*corev1.Pod
		reason  string
		message string
	}{
		{"an empty pod", pod("", ""), nil, "", ""},
		{"one that just fits", pod("500m", "512Mi"), []*corev1.Pod{pod("1500m", "512Mi")}, "", ""},
		{"one CPU too many", pod("1", ""), []*corev1.Pod{pod("1500m", "")}, "OutOfcpu",
			"Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"},
		{"too much memory", pod("", "2Gi"), nil, "OutOfmemory",
			"Pod was rejected: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"},
		{"one pod too many", pod("", ""), []*corev1.Pod{pod("", ""), pod("", ""), pod("", "")}, "OutOfpods",
			"Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		{"a safe sysctl", pod("", "", sysctl("kernel.shm_rmid_forced")), nil, "", ""},
		{"a safe sysctl with slashes", pod("", "", sysctl("net/ipv4/tcp_syncookies")), nil, "", ""},
		{"an unsafe sysctl", pod("", "", sysctl("kernel.msgmax")), nil, "SysctlForbidden", `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{"a sysctl of the host's network", pod("", "", sysctl("net.ipv4.tcp_syncookies"), hostNetwork), nil, "SysctlForbidden",
			`forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled`},
		{"a free port", pod("", "", port("", 80)), []*corev1.Pod{pod("", "", port("", 81))}, "", ""},
		{"the same port on another address", pod("", "", port("10.0.0.1", 80)), []*corev1.Pod{pod("", "", port("10.0.0.2", 80))}, "", ""},
		{"a port that is taken on all addresses", pod("", "", port("10.0.0.1", 80)), []*corev1.Pod{pod("", "", port("", 80))}, "NodePorts",
			"Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
	} {
		v := admit(tt.pod, tt.others, node)
		if v == nil {
			v = &verdict{}
		}
		if v.reason != tt.reason || v.message != tt.message {
			t.Errorf("%s: got %q %q, want %q %q", tt.name, v.reason, v.message, tt.reason, tt.message)
		}
	}
	if v := admit(pod("100", ""), nil, nil); v != nil {
		t.Errorf("with nothing known about the node: %q", v.message)
	}
}

func TestExpandProbeCommand(t *testing.T) {
	got := expand([]string{"sh", "-c", "test -f $(DIR)/ok $(OTHER) $$(DIR)"}, []corev1.EnvVar{{Name: "DIR", Value: "/data"}})
	if want := "test -f /data/ok $(OTHER) $(DIR)"; got[2] != want {
		t.Errorf("got %q, want %q", got[2], want)
	}
}
