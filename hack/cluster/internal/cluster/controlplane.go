package cluster

import (
	"net"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/pki"
)

// Networks of a cluster. They exist only in its own network namespace, so every cluster has the same.
const (
	serviceCIDR = "10.96.0.0/16"
	serviceIP   = "10.96.0.1" // of the service "kubernetes"
	dnsIP       = "10.96.0.10"
	podCIDR     = "10.244.0.0/16"
)

// credentials are the files that the control plane is started with.
type credentials struct {
	ca, etcdCA, frontProxyCA             *pki.Authority
	apiserver, controllers, scheduler    pki.Pair
	etcd, etcdClient, kubelet, aggregate pki.Pair
	tokenKey, tokenPub                   string
}

// etcdProgram keeps no promise to the disk: the data of a test cluster is gone when the machine is.
func (c *Cluster) etcdProgram(cr *credentials) program {
	s := c.state
	return program{
		name:    "etcd",
		timeout: 60 * time.Second,
		health:  Health{URL: "http://" + net.JoinHostPort(s.Address, "2381") + "/health"},
		argv: []string{s.bin("etcd"),
			"--data-dir=" + s.path("etcd"),
			"--unsafe-no-fsync",
			"--listen-client-urls=https://127.0.0.1:2379",
			"--advertise-client-urls=https://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", // there is no peer
			"--listen-metrics-urls=http://" + net.JoinHostPort(s.Address, "2381"),
			"--cert-file=" + cr.etcd.Cert,
			"--key-file=" + cr.etcd.Key,
			"--client-cert-auth",
			"--trusted-ca-file=" + cr.etcdCA.Cert,
			"--log-level=warn",
		},
	}
}

func (c *Cluster) apiserverProgram(cr *credentials) program {
	s := c.state
	return program{
		name:    "kube-apiserver",
		timeout: 90 * time.Second,
		health:  Health{URL: s.Server + "/readyz"},
		argv: []string{s.bin("kube-apiserver"),
			"--advertise-address=" + s.Address,
			"--bind-address=" + s.Address,
			"--secure-port=6443",
			"--tls-cert-file=" + cr.apiserver.Cert,
			"--tls-private-key-file=" + cr.apiserver.Key,
			"--client-ca-file=" + cr.ca.Cert,
			"--etcd-servers=https://127.0.0.1:2379",
			"--etcd-cafile=" + cr.etcdCA.Cert,
			"--etcd-certfile=" + cr.etcdClient.Cert,
			"--etcd-keyfile=" + cr.etcdClient.Key,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--kubelet-certificate-authority=" + cr.ca.Cert,
			"--kubelet-client-certificate=" + cr.kubelet.Cert,
			"--kubelet-client-key=" + cr.kubelet.Key,
			"--kubelet-preferred-address-types=InternalIP", // node names are not in any DNS
			"--service-cluster-ip-range=" + serviceCIDR,
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + cr.tokenPub,
			"--service-account-signing-key-file=" + cr.tokenKey,
			"--requestheader-client-ca-file=" + cr.frontProxyCA.Cert,
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + cr.aggregate.Cert,
			"--proxy-client-key-file=" + cr.aggregate.Key,
			"--profiling=false",
		},
	}
}

func (c *Cluster) controllersProgram(cr *credentials) program {
	s := c.state
	return program{
		name:    "kube-controller-manager",
		timeout: 60 * time.Second,
		health:  Health{URL: "https://" + net.JoinHostPort(s.Address, "10257") + "/healthz"},
		argv: []string{s.bin("kube-controller-manager"),
			"--kubeconfig=" + s.path("kubeconfigs", "kube-controller-manager"),
			"--bind-address=" + s.Address,
			"--tls-cert-file=" + cr.controllers.Cert,
			"--tls-private-key-file=" + cr.controllers.Key,
			"--leader-elect=false",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + cr.tokenKey,
			"--root-ca-file=" + cr.ca.Cert,
			"--cluster-signing-cert-file=" + cr.ca.Cert,
			"--cluster-signing-key-file=" + cr.ca.Key,
			// With the default of 20 requests a second it takes 4 s until the first service account exists.
			"--kube-api-qps=200",
			"--kube-api-burst=400",
			"--allocate-node-cidrs=false", // host-local has one range for all nodes
			"--service-cluster-ip-range=" + serviceCIDR,
			"--profiling=false",
		},
	}
}

func (c *Cluster) schedulerProgram(cr *credentials) program {
	s := c.state
	return program{
		name:    "kube-scheduler",
		timeout: 60 * time.Second,
		health:  Health{URL: "https://" + net.JoinHostPort(s.Address, "10259") + "/healthz"},
		argv: []string{s.bin("kube-scheduler"),
			"--kubeconfig=" + s.path("kubeconfigs", "kube-scheduler"),
			"--bind-address=" + s.Address,
			"--tls-cert-file=" + cr.scheduler.Cert,
			"--tls-private-key-file=" + cr.scheduler.Key,
			"--leader-elect=false",
			"--profiling=false",
		},
	}
}

// proxyProgram: one for the machine, because all nodes share its network namespace. It waits up to 30 s for the Node
// object that it is called by. The conntrack settings are zero since only the host's own namespace may change them. Everything is masqueraded: a pod and the endpoint it reaches
// through a service are often on the same bridge, and the answer must take the way back through the packet filter.
func (c *Cluster) proxyProgram() program {
	s := c.state
	return program{
		name:    "kube-proxy",
		timeout: 60 * time.Second,
		health:  Health{URL: "http://" + net.JoinHostPort(s.Address, "10256") + "/livez"},
		argv: []string{s.bin("kube-proxy"),
			"--kubeconfig=" + s.path("kubeconfigs", "kube-proxy"),
			"--proxy-mode=iptables",
			"--cluster-cidr=" + podCIDR,
			"--hostname-override=" + s.NodeNames()[0],
			"--bind-address=" + s.Address,
			"--healthz-bind-address=" + net.JoinHostPort(s.Address, "10256"),
			"--metrics-bind-address=" + net.JoinHostPort(s.Address, "10249"),
			"--iptables-localhost-nodeports=false",
			"--conntrack-max-per-core=0",
			"--conntrack-tcp-timeout-established=0s",
			"--conntrack-tcp-timeout-close-wait=0s",
			"--masquerade-all",
		},
	}
}

// registryProgram is this program itself.
func (c *Cluster) registryProgram() program {
	s := c.state
	return program{
		name:    "registry",
		timeout: 20 * time.Second,
		health:  Health{URL: "http://" + s.Registry.Address + "/v2/"},
		argv:    []string{c.self, RegistryCommand, "--dir", s.path("registry"), "--listen", s.Registry.Address, "--auth-listen", s.AuthRegistry.Address, "--username", s.AuthRegistry.Username},
		env:     []string{"REGISTRY_PASSWORD=" + s.AuthRegistry.Password},
	}
}

// RegistryCommand is the hidden subcommand that serves images.
const RegistryCommand = "serve-registry"
