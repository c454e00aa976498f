package cluster

import (
	"os"

	"github.com/sidemount/sidemount/hack/cluster/internal/pki"
)

// issue makes all certificates and kubeconfigs of the control plane that do not exist yet.
func (c *Cluster) issue() (*credentials, error) {
	s := c.state
	cr := &credentials{}
	var err error
	for _, a := range []struct {
		to   **pki.Authority
		name string
	}{{&cr.ca, "ca"}, {&cr.etcdCA, "etcd-ca"}, {&cr.frontProxyCA, "front-proxy-ca"}} {
		if *a.to, err = pki.OpenAuthority(s.pki(), a.name); err != nil {
			return nil, err
		}
	}
	if cr.tokenKey, cr.tokenPub, err = pki.SigningKeys(s.pki()); err != nil {
		return nil, err
	}
	var admin, proxy pki.Pair
	for _, r := range []struct {
		to   *pki.Pair
		from *pki.Authority
		req  pki.Request
	}{
		{&cr.etcd, cr.etcdCA, pki.Request{Name: "etcd", User: "etcd", Hosts: []string{"127.0.0.1"}}},
		{&cr.etcdClient, cr.etcdCA, pki.Request{Name: "etcd-client", User: "kube-apiserver"}},
		{&cr.aggregate, cr.frontProxyCA, pki.Request{Name: "front-proxy-client", User: "front-proxy-client"}},
		{&cr.apiserver, cr.ca, pki.Request{Name: "kube-apiserver", User: "kube-apiserver", Hosts: []string{
			s.Address, "127.0.0.1", serviceIP, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"}}},
		{&cr.kubelet, cr.ca, pki.Request{Name: "kubelet-client", User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}}},
		{&cr.controllers, cr.ca, pki.Request{Name: "kube-controller-manager", User: "system:kube-controller-manager", Hosts: []string{s.Address}}},
		{&cr.scheduler, cr.ca, pki.Request{Name: "kube-scheduler", User: "system:kube-scheduler", Hosts: []string{s.Address}}},
		{&proxy, cr.ca, pki.Request{Name: "kube-proxy", User: "system:kube-proxy"}},
		{&admin, cr.ca, pki.Request{Name: "admin", User: "kubernetes-admin", Groups: []string{"system:masters"}}},
	} {
		if *r.to, err = r.from.Issue(r.req); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(s.path("kubeconfigs"), 0o755); err != nil {
		return nil, err
	}
	for name, pair := range map[string]pki.Pair{
		"kube-controller-manager": cr.controllers, "kube-scheduler": cr.scheduler, "kube-proxy": proxy,
	} {
		if err := pki.WriteKubeconfig(s.path("kubeconfigs", name), s.Server, name, cr.ca.Cert, pair); err != nil {
			return nil, err
		}
	}
	return cr, pki.WriteKubeconfig(s.Kubeconfig, s.Server, "kubernetes-admin", cr.ca.Cert, admin)
}
