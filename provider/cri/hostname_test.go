package cri

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestHostname(t *testing.T) {
	override := "over.ride"
	for _, tt := range []struct {
		pod          string
		spec         corev1.PodSpec
		name, domain string
	}{
		{"web-0", corev1.PodSpec{}, "web-0", ""},
		{"web-0", corev1.PodSpec{Hostname: "box"}, "box", ""},
		{"web-0", corev1.PodSpec{Subdomain: "sub"}, "web-0", "sub.ns.svc.cluster.local"},
		{"web-0", corev1.PodSpec{Hostname: "box", Subdomain: "sub", HostnameOverride: &override}, "over.ride", ""},
		{strings.Repeat("a", 62) + ".b", corev1.PodSpec{}, strings.Repeat("a", 62), ""},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: tt.pod}, Spec: tt.spec}
		name, domain, err := Hostname(pod, "cluster.local")
		if err != nil || name != tt.name || domain != tt.domain {
			t.Errorf("Hostname(%s, %+v) = %q, %q, %v; want %q, %q", tt.pod, tt.spec, name, domain, err, tt.name, tt.domain)
		}
	}
	for _, spec := range []corev1.PodSpec{{Hostname: "a.b"}, {Subdomain: "A"}, {Hostname: strings.Repeat("a", 64)}} {
		if _, _, err := Hostname(&corev1.Pod{Spec: spec}, ""); !errors.Is(err, ErrConfig) {
			t.Errorf("Hostname(%+v): %v, want ErrConfig", spec, err)
		}
	}
}

func TestFQDNMustFitTheKernel(t *testing.T) {
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strings.Repeat("a", 60)},
		Spec:       corev1.PodSpec{Subdomain: "sub", SetHostnameAsFQDN: &yes},
	}
	_, err := SandboxConfig(pod, SandboxInput{ClusterDomain: "cluster.local"})
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "64 characters is the max") {
		t.Errorf("SandboxConfig: %v", err)
	}
}

func TestHostsFile(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{HostAliases: []corev1.HostAlias{
		{IP: "192.0.2.9", Hostnames: []string{"nine", "neuf"}}, {IP: "192.0.2.8", Hostnames: []string{"eight"}},
	}}}
	head := "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
	aliases := "\n# Entries added by HostAliases.\n192.0.2.9\tnine\tneuf\n192.0.2.8\teight\n"
	for _, tt := range []struct {
		domain string
		host   bool
		want   string
	}{
		{"", false, head + "10.0.0.1\tbox\nfd00::1\tbox\n" + aliases},
		{"s.ns.svc.x", false, head + "10.0.0.1\tbox.s.ns.svc.x\tbox\nfd00::1\tbox.s.ns.svc.x\tbox\n" + aliases},
		{"", true, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 node\n" + aliases},
	} {
		pod.Spec.HostNetwork = tt.host
		got := HostsFile(pod, []string{"10.0.0.1", "fd00::1"}, "box", tt.domain, []byte("127.0.0.1 node\n"))
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("host=%t (-want +got):\n%s", tt.host, diff)
		}
	}
}
