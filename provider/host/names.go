package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

// resolvConf is where a container's resolver is configured. The runtime mounts the pod's there, unless the container has a mount of its own.
const resolvConf = "/etc/resolv.conf"

// name gives a container its hosts file, and to a sidecar that was added to the pod names that the pod's author has no say in: it sends the
// volume's credentials to whoever has its servers' names.
func (h *Host) name(r provider.CreateRequest, in *cri.ContainerInput) error {
	pod, suffix := r.Pod, ""
	if r.Injected {
		pod, suffix = impartial(r.Pod), "-sidecars"
		if pod.Spec.DNSPolicy != r.Pod.Spec.DNSPolicy || pod.Spec.DNSConfig != r.Pod.Spec.DNSConfig {
			config, _ := h.o.DNS.Config(pod)
			path, err := h.podFile(r.Pod, "resolv-conf"+suffix, resolver(config))
			if err != nil {
				return err
			}
			in.Mounts = append(in.Mounts, cri.Mount{Name: "resolv-conf", ContainerPath: resolvConf, HostPath: path, ReadOnly: true, SELinuxRelabel: true})
		}
	}
	content, err := h.hosts(pod, r.PodIPs)
	if err != nil {
		return err
	}
	in.HostsFile, err = h.podFile(r.Pod, "etc-hosts"+suffix, content)
	return err
}

// impartial is the pod without what its author says about names. Options of the resolver name nothing and stay.
func impartial(pod *corev1.Pod) *corev1.Pod {
	out := *pod
	out.Spec.HostAliases = nil
	if out.Spec.DNSPolicy == corev1.DNSNone {
		out.Spec.DNSPolicy = corev1.DNSClusterFirst
	}
	if own := pod.Spec.DNSConfig; own != nil && len(own.Nameservers)+len(own.Searches) > 0 {
		out.Spec.DNSConfig = &corev1.PodDNSConfig{Options: own.Options}
	}
	return &out
}

// hosts is what a container sees as /etc/hosts.
func (h *Host) hosts(pod *corev1.Pod, ips []string) ([]byte, error) {
	name, domain, err := cri.Hostname(pod, h.o.DNS.ClusterDomain)
	if err != nil {
		return nil, err
	}
	var own []byte
	if pod.Spec.HostNetwork {
		if own, err = h.o.NodeHosts(); err != nil {
			return nil, fmt.Errorf("read the node's hosts file: %w", err)
		}
	}
	return cri.HostsFile(pod, ips, name, domain, own), nil
}

// resolver writes a resolv.conf(5).
func resolver(c *runtimeapi.DNSConfig) []byte {
	var b strings.Builder
	for _, s := range c.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(c.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Searches, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return []byte(b.String())
}

// podFile writes a file that containers of the pod have mounted.
func (h *Host) podFile(pod *corev1.Pod, name string, content []byte) (string, error) {
	path := filepath.Join(h.podDir(pod.UID), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("make directory of pod: %w", err)
	}
	// It is written in place: containers that run already have this very file mounted.
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	// The umask may have taken the right to read, which users in containers need.
	if err := os.Chmod(path, 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}
