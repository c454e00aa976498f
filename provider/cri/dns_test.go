package cri

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseResolvConf(t *testing.T) {
	got := ParseResolvConf([]byte("# comment\nnameserver 192.0.2.1\n\tnameserver 2001:db8::1 # two\nsearch first.example\n" +
		"options ndots:1 rotate\nsearch a.example. . b.example\noptions ndots:3\nnameserver\nsortlist 1\n"))
	want := &ResolvConf{
		Servers: []string{"192.0.2.1", "2001:db8::1"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:3", "rotate"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDNSPolicy(t *testing.T) {
	node := &ResolvConf{Servers: []string{"192.0.2.53"}, Searches: []string{"corp.example"}, Options: []string{"rotate"}}
	cluster := DNS{ClusterServers: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", Host: node}
	inCluster := ResolvConf{
		Servers:  []string{"10.96.0.10"},
		Searches: []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"},
		Options:  []string{"ndots:5"},
	}
	for _, tt := range []struct {
		name    string
		dns     DNS
		policy  corev1.DNSPolicy
		host    bool
		want    ResolvConf
		warning string
	}{
		{name: "ClusterFirst", dns: cluster, policy: corev1.DNSClusterFirst, want: inCluster},
		{name: "ClusterFirst on the host network", dns: cluster, policy: corev1.DNSClusterFirst, host: true, want: *node},
		{name: "ClusterFirstWithHostNet", dns: cluster, policy: corev1.DNSClusterFirstWithHostNet, host: true, want: inCluster},
		{name: "Default", dns: cluster, policy: corev1.DNSDefault, want: *node},
		{name: "None", dns: cluster, policy: corev1.DNSNone, want: ResolvConf{}},
		{name: "no cluster DNS", dns: DNS{Host: node}, policy: corev1.DNSClusterFirst, want: *node, warning: "Falling back"},
		{name: "no cluster DNS, Default", dns: DNS{Host: node}, policy: corev1.DNSDefault, want: *node},
		{name: "no name resolution", dns: DNS{}, policy: corev1.DNSDefault, want: ResolvConf{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{DNSPolicy: tt.policy, HostNetwork: tt.host}}
			c, warnings := tt.dns.Config(pod)
			got := ResolvConf{Servers: c.Servers, Searches: c.Searches, Options: c.Options}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if joined := strings.Join(warnings, "\n"); (tt.warning == "") != (joined == "") || !strings.Contains(joined, tt.warning) {
				t.Errorf("warnings = %q, want %q", joined, tt.warning)
			}
		})
	}
	// Neither the node's nor the cluster's lists may grow with each pod.
	if len(node.Searches) != 1 || len(cluster.ClusterServers) != 1 {
		t.Error("Config changed what it was given")
	}
}

func TestDNSLimits(t *testing.T) {
	own := &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "1.1.1.1", "4.4.4.4"}}
	for i := range 40 {
		own.Searches = append(own.Searches, fmt.Sprintf("d%02d.%s", i, strings.Repeat("x", 57)))
	}
	own.Searches[3] = strings.Repeat("l", 254)
	c, warnings := DNS{}.Config(&corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: own}})
	if diff := cmp.Diff([]string{"1.1.1.1", "2.2.2.2", "3.3.3.3"}, c.Servers); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	if len(c.Searches) != 31 || len(strings.Join(c.Searches, " ")) > 2048 {
		t.Errorf("%d searches of %d characters", len(c.Searches), len(strings.Join(c.Searches, " ")))
	}
	if len(warnings) != 2 {
		t.Errorf("warnings = %q", warnings)
	}
}
