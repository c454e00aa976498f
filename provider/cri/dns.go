package cri

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What resolvers can take; the API server checks a pod's own dnsConfig against the same numbers.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchChars  = 2048
	maxSearchDomain = 253
)

// DNS is a node's configuration of name resolution.
type DNS struct {
	// ClusterServers are the addresses of the cluster's DNS service. Without them ClusterFirst means Default.
	ClusterServers []string
	// ClusterDomain is searched for services, usually "cluster.local".
	ClusterDomain string
	// Host is the node's own configuration (ParseResolvConf). Nil means that pods of policy Default resolve by whatever listens on
	// their own loopback address, which is nothing: a way to switch name resolution off.
	Host *ResolvConf
}

// ResolvConf is the content of a resolv.conf(5).
type ResolvConf struct {
	Servers  []string
	Searches []string
	Options  []string
}

// ParseResolvConf reads a resolv.conf(5): name servers add up, the last search line wins, options override by name.
func ParseResolvConf(content []byte) *ResolvConf {
	var c ResolvConf
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			c.Servers = append(c.Servers, fields[1])
		case "search":
			c.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					c.Searches = append(c.Searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			c.Options = mergeOptions(c.Options, fields[1:])
		}
	}
	return &c
}

// Config returns a pod's configuration and what had to be left out of it to fit a resolver's limits, one sentence each, for
// events of reason DNSConfigForming or MissingClusterDNS.
func (d DNS) Config(pod *corev1.Pod) (*runtimeapi.DNSConfig, []string) {
	var warnings []string
	var c ResolvConf
	switch d.policy(pod) {
	case corev1.DNSNone:
	case corev1.DNSClusterFirst:
		c = d.cluster(pod.Namespace)
	default:
		c = d.host()
		if pod.Spec.DNSPolicy == corev1.DNSClusterFirst && !pod.Spec.HostNetwork || pod.Spec.DNSPolicy == corev1.DNSClusterFirstWithHostNet {
			warnings = append(warnings, fmt.Sprintf("the node does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.",
				corev1.DNSClusterFirst, corev1.DNSDefault))
		}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		c.Servers = unique(append(c.Servers, own.Nameservers...))
		c.Searches = unique(append(c.Searches, own.Searches...))
		for _, o := range own.Options {
			option := o.Name
			if o.Value != nil && *o.Value != "" {
				option += ":" + *o.Value
			}
			c.Options = mergeOptions(c.Options, []string{option})
		}
	}
	warnings = append(warnings, c.fit()...)
	return &runtimeapi.DNSConfig{Servers: c.Servers, Searches: c.Searches, Options: c.Options}, warnings
}

// policy is the pod's policy as far as this node can follow it: None, ClusterFirst or Default.
func (d DNS) policy(pod *corev1.Pod) corev1.DNSPolicy {
	switch p := pod.Spec.DNSPolicy; {
	case p == corev1.DNSNone:
		return p
	case p == corev1.DNSDefault, p == corev1.DNSClusterFirst && pod.Spec.HostNetwork, len(d.ClusterServers) == 0:
		return corev1.DNSDefault
	}
	return corev1.DNSClusterFirst
}

func (d DNS) cluster(namespace string) ResolvConf {
	c := ResolvConf{Servers: slices.Clone(d.ClusterServers), Options: []string{"ndots:5"}}
	if d.ClusterDomain != "" {
		c.Searches = []string{namespace + ".svc." + d.ClusterDomain, "svc." + d.ClusterDomain, d.ClusterDomain}
	}
	if d.Host != nil {
		c.Searches = unique(append(c.Searches, d.Host.Searches...))
	}
	return c
}

func (d DNS) host() ResolvConf {
	if d.Host == nil {
		return ResolvConf{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}
	}
	return ResolvConf{
		Servers: slices.Clone(d.Host.Servers), Searches: slices.Clone(d.Host.Searches), Options: slices.Clone(d.Host.Options),
	}
}

// fit cuts what a resolver would ignore, or abort on, and tells what is left.
func (c *ResolvConf) fit() []string {
	var warnings []string
	if len(c.Servers) > maxNameservers {
		c.Servers = c.Servers[:maxNameservers]
		warnings = append(warnings, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+
			strings.Join(c.Servers, " "))
	}
	before := len(c.Searches)
	c.Searches = c.Searches[:min(len(c.Searches), maxSearches)]
	c.Searches = slices.DeleteFunc(c.Searches, func(s string) bool { return len(s) > maxSearchDomain })
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
	if len(c.Searches) < before {
		warnings = append(warnings, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+
			strings.Join(c.Searches, " "))
	}
	return warnings
}

// mergeOptions overrides options by what stands before the colon and keeps their order.
func mergeOptions(options, more []string) []string {
	for _, o := range more {
		name, _, _ := strings.Cut(o, ":")
		i := slices.IndexFunc(options, func(old string) bool {
			oldName, _, _ := strings.Cut(old, ":")
			return oldName == name
		})
		if i >= 0 {
			options[i] = o
		} else {
			options = append(options, o)
		}
	}
	return options
}

func unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		dup := seen[s]
		seen[s] = true
		return dup
	})
}
