package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/node"
	"github.com/sidemount/sidemount/sidecar"
)

// nodeOptions are the flags of "sidemount node".
type nodeOptions struct {
	nodeName, nodeIP, kubeconfig                 string
	runtimeEndpoint, cgroupParent                string
	rootDir, runDir, podLogsDir, agentPath       string
	containerLogsDir                             string
	juicefsImage, passthroughImage               string
	driverNames                                  []string
	clusterDNS                                   []string
	clusterDomain, resolvConf                    string
	address                                      string
	port                                         int32
	tlsCertFile, tlsPrivateKeyFile, clientCAFile string
	capacity, reserved, labels                   map[string]string
	taints                                       []string
	providerID                                   string
	seccompDefault                               bool
	metricsAddress, logLevel, logFormat          string
	parallelPulls, parallelSandboxes             int
	orphanTimeout                                time.Duration
}

func newNodeCommand() *cobra.Command {
	o := &nodeOptions{}
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a virtual node: pods on a container runtime, each volume served by a sidecar of its own",
		Long: "Run a virtual node.\n\nEvery flag can also be given by an environment variable: --node-name by SIDEMOUNT_NODE_NAME.\n" +
			"The end of the process leaves the pods running; the next one takes them over.",
		Args: cobra.NoArgs,
		RunE: role(o.complete, &o.logLevel, &o.logFormat, func(ctx context.Context) error { return runNode(ctx, o) }),
	}
	o.addTo(cmd.Flags())
	cmd.AddCommand(newNodeInstallCommand(), newNodeUninstallCommand())
	return cmd
}

func (o *nodeOptions) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.nodeName, "node-name", "", "name of the Node object (default: the host's name in lower case)")
	f.StringVar(&o.nodeIP, "node-ip", "", "address of the node (default: the one from which this host reaches the API server)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the node's identity (default: the pod's service account)")
	f.StringVar(&o.runtimeEndpoint, "runtime-endpoint", "unix:///run/containerd/containerd.sock", "socket of the CRI runtime")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "/sidemount", "control group of all pods; two nodes on one host need two")
	f.StringVar(&o.rootDir, "root-dir", "/var/lib/sidemount", "directory of the pods' volumes and of all state; it must be below a shared mount")
	f.StringVar(&o.runDir, "run-dir", "/run/sidemount", "directory of sockets")
	f.StringVar(&o.podLogsDir, "pod-logs-dir", "/var/log/pods", "directory of the pods' logs")
	f.StringVar(&o.containerLogsDir, "container-logs-dir", "/var/log/containers", "directory of links to the logs, for log collectors; empty for none")
	f.StringVar(&o.agentPath, "agent-path", "", "the program sidemount-agent (default: beside this program)")
	f.StringVar(&o.juicefsImage, "juicefs-image", "", "image of the JuiceFS client (default: the one of this version)")
	f.StringVar(&o.passthroughImage, "passthrough-image", "", "image in which the passthrough client runs (default: a pause image)")
	f.StringSliceVar(&o.driverNames, "driver-name", []string{sidecar.DefaultDriver}, "CSI driver whose volumes are served; may be repeated")
	f.StringSliceVar(&o.clusterDNS, "cluster-dns", nil, "address of the cluster's DNS service; may be repeated")
	f.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain of the cluster")
	f.StringVar(&o.resolvConf, "resolv-conf", "/etc/resolv.conf", "name resolution of pods with dnsPolicy Default; empty for none")
	f.StringVar(&o.address, "address", "0.0.0.0", "address that the HTTPS API listens on")
	f.Int32Var(&o.port, "port", 10250, "port of the HTTPS API")
	f.StringVar(&o.tlsCertFile, "tls-cert-file", "", "serving certificate, followed when it changes (default: one requested from the cluster)")
	f.StringVar(&o.tlsPrivateKeyFile, "tls-private-key-file", "", "key of the serving certificate")
	f.StringVar(&o.clientCAFile, "client-ca-file", "", "authorities of client certificates (default: only tokens are accepted)")
	f.StringToStringVar(&o.capacity, "capacity", nil, "capacity instead of the host's, e.g. cpu=8,memory=16Gi,pods=250 (pods default to 110)")
	f.StringToStringVar(&o.reserved, "reserved", nil, "what of the capacity pods may not use, e.g. cpu=500m,memory=1Gi")
	f.StringToStringVar(&o.labels, "labels", nil, "further labels of the Node object")
	f.StringSliceVar(&o.taints, "taints", nil, "taints instead of "+node.TaintKey+"=sidemount:NoSchedule; \"none\" for no taint; set at registration only")
	f.StringVar(&o.providerID, "provider-id", "", "spec.providerID (default: sidemount://<node-name>)")
	f.BoolVar(&o.seccompDefault, "seccomp-default", false, "apply the runtime's seccomp profile to pods that ask for none")
	f.IntVar(&o.parallelPulls, "parallel-pulls", 5, "images pulled at a time")
	f.IntVar(&o.parallelSandboxes, "parallel-sandboxes", 8, "pod sandboxes created at a time")
	addOrphanTimeout(f, &o.orphanTimeout)
	f.StringVar(&o.metricsAddress, "metrics-address", "", "address for /metrics and /healthz without authentication, e.g. 127.0.0.1:10255 (default: none)")
	f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
}

// complete fills in what depends on the host and refuses what cannot work.
func (o *nodeOptions) complete() error {
	var err error
	if o.nodeName, err = nodeNameOr(o.nodeName); err != nil {
		return err
	}
	if o.agentPath, err = agentPathOr(o.agentPath); err != nil {
		return err
	}
	for name, dir := range map[string]string{"root-dir": o.rootDir, "run-dir": o.runDir, "pod-logs-dir": o.podLogsDir} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("--%s %q: want an absolute path", name, dir)
		}
	}
	if err := checkOrphanTimeout(o.orphanTimeout); err != nil {
		return err
	}
	if (o.tlsCertFile == "") != (o.tlsPrivateKeyFile == "") {
		return fmt.Errorf("--tls-cert-file and --tls-private-key-file go together")
	}
	return nil
}

// addOrphanTimeout adds the flag of broker.Options.Orphan. An hour is longer than most outages of a back end or a registry, and shorter than the patience of whoever waits for a
// process that cannot be killed.
func addOrphanTimeout(f *pflag.FlagSet, to *time.Duration) {
	f.DurationVar(to, "orphan-timeout", time.Hour, "how long calls may wait for a volume's client when none comes back; then they fail, open files are lost and the volume is mounted anew; "+
		"0 for ever")
}

func checkOrphanTimeout(d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("--orphan-timeout %s: want a duration, or 0", d)
	}
	return nil
}

// nodeNameOr returns the host's name as the kubelet would, unless a name is given.
func nodeNameOr(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host's name: %w", err)
	}
	return strings.ToLower(name), nil
}

// object is the Node object that the flags describe.
func (o *nodeOptions) object() (node.Object, error) {
	object := node.Object{
		Name:       o.nodeName,
		Port:       o.port,
		Version:    node.Version(kubernetesVersion, version),
		Labels:     o.labels,
		ProviderID: o.providerID,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: o.nodeIP},
			{Type: corev1.NodeHostName, Address: o.nodeName},
		},
	}
	var err error
	if object.Taints, err = parseTaints(o.taints); err != nil {
		return object, err
	}
	if object.Capacity, err = parseResources("capacity", o.capacity); err != nil {
		return object, err
	}
	if object.Reserved, err = parseResources("reserved", o.reserved); err != nil {
		return object, err
	}
	return object, nil
}

func parseTaints(texts []string) ([]corev1.Taint, error) {
	switch {
	case len(texts) == 0:
		return nil, nil
	case len(texts) == 1 && texts[0] == "none":
		return []corev1.Taint{}, nil
	}
	taints := make([]corev1.Taint, 0, len(texts))
	for _, text := range texts {
		taint, err := node.ParseTaint(text)
		if err != nil {
			return nil, err
		}
		taints = append(taints, taint)
	}
	return taints, nil
}

func parseResources(flag string, texts map[string]string) (corev1.ResourceList, error) {
	list := corev1.ResourceList{}
	for name, text := range texts {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("--%s %s=%s: %w", flag, name, text, err)
		}
		list[corev1.ResourceName(name)] = quantity
	}
	return list, nil
}

// images are the images of clients that the flags replace.
func (o *nodeOptions) images() map[mount.ClientKind]string {
	images := map[mount.ClientKind]string{}
	if o.juicefsImage != "" {
		images[mount.JuiceFS] = o.juicefsImage
	}
	if o.passthroughImage != "" {
		images[mount.Passthrough] = o.passthroughImage
	}
	return images
}
