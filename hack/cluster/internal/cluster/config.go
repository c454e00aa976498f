package cluster

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed templates
var templates embed.FS

// writeConfig writes the files that all nodes share: containerd's configuration, where it finds images, the pod network.
func (c *Cluster) writeConfig() error {
	s := c.state
	for _, dir := range []string{"log", "cni/net.d", "kubeconfigs", "nodes", "files"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"containerd.toml":                    "containerd.toml",
		"cni/net.d/10-pods.conflist":         "pods.conflist",
		"certs.d/_default/hosts.toml":        "hosts.toml",
		"certs.d/docker.io/hosts.toml":       "hosts.toml",
		"certs.d/registry.k8s.io/hosts.toml": "hosts.toml",
		"certs.d/ghcr.io/hosts.toml":         "hosts.toml",
		"kubectl":                            "kubectl",
		"resolv.conf":                        "resolv.conf",
	}
	for file, name := range files {
		if err := render(s.path(file), name, s); err != nil {
			return err
		}
	}
	// The registry that wants a password is asked by its own name only.
	auth := &State{Registry: s.AuthRegistry}
	if err := render(s.path("certs.d", s.AuthRegistry.Address, "hosts.toml"), "hosts.toml", auth); err != nil {
		return err
	}
	return os.Chmod(s.Kubectl, 0o755)
}

func render(file, name string, data any) error {
	t, err := template.ParseFS(templates, "templates/"+name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// writeKubeletConfig: the settings that are not a kubelet's default, each for a reason of this environment. The node's
// cgroup namespace lets cgroupRoot be the default.
func (c *Cluster) writeKubeletConfig(n Node) error {
	s := c.state
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  n.Address,
		"healthzBindAddress":       n.Address,
		"tlsCertFile":              n.Serving.Cert,
		"tlsPrivateKeyFile":        n.Serving.Key,
		"authentication":           object{"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": s.CA}},
		"authorization":            object{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix://" + containerdRun + "/containerd.sock",
		"clusterDNS":               []string{dnsIP},
		"clusterDomain":            "cluster.local",
		"resolvConf":               s.path("resolv.conf"),
		"volumePluginDir":          kubeletDir + "/volume-plugins", // the default lies in /usr
		"cgroupDriver":             "cgroupfs",                     // there is no systemd inside
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"oomScoreAdj":              0,     // a machine may lack CAP_SYS_RESOURCE, which lowering it needs
		"maxOpenFiles":             20000, // likewise: the limit cannot be raised
		// Else an image that is also pulled under another name stops being one that every pod may use.
		"imagePullCredentialsVerificationPolicy": "NeverVerify",
		// The disk is the developer's; its fill level is not what is tested.
		"evictionHard":                object{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, "kubelet.json"), b, 0o644)
}
