package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/preflight"
	"github.com/sidemount/sidemount/provider/cri"
)

// preflightOptions are the flags of "sidemount preflight". Those that a node has too have the same names, so that the node's
// environment file describes both.
type preflightOptions struct {
	role, output                string
	nodeName, kubeconfig        string
	runtimeEndpoint             string
	rootDir, stateDir, runDir   string
	kubeletDir, agentPath, root string
}

// errUnusable is the error of a host that lacks something; the report has said what.
var errUnusable = errors.New("this host lacks what is marked as missing")

func newPreflightCommand() *cobra.Command {
	o := &preflightOptions{}
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Look whether this host can be a node: each check, what was found, the cure",
		Long: "Look whether this host can be a node.\n\nA line for each check tells what was found and, where something is wrong, the cure. Nothing is changed. " +
			"The command fails if something is missing without which a node cannot work; warnings do not make it fail.\n\n" +
			"Every flag can also be given by the environment variable that \"sidemount node\" and \"sidemount csi node\" know it by: " +
			"--runtime-endpoint by SIDEMOUNT_RUNTIME_ENDPOINT.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := o.examine(cmd.Context())
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), report)
		},
	}
	o.addTo(cmd.Flags())
	return cmd
}

func (o *preflightOptions) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.role, "role", string(preflight.VirtualNode), "what the host is to be: virtual-node, for \"sidemount node\", or csi-node, for \"sidemount csi node\"")
	f.StringVarP(&o.output, "output", "o", "table", "table or json")
	f.StringVar(&o.nodeName, "node-name", "", "name of the Node object (default: the host's name in lower case)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of a virtual node's identity; empty: the API server is not asked")
	f.StringVar(&o.runtimeEndpoint, "runtime-endpoint", "unix:///run/containerd/containerd.sock", "socket of a virtual node's CRI runtime; empty: it is not asked")
	f.StringVar(&o.rootDir, "root-dir", "/var/lib/sidemount", "a virtual node's directory of volumes and state")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/sidemount/csi", "the CSI driver's directory of state and mounts")
	f.StringVar(&o.runDir, "run-dir", "", "directory of sockets (default: /run/sidemount, or /run/sidemount/csi)")
	f.StringVar(&o.kubeletDir, "kubelet-dir", "/var/lib/kubelet", "the kubelet's root directory, for csi-node")
	f.StringVar(&o.agentPath, "agent-path", "", "the program sidemount-agent (default: beside this program)")
}

// examine makes the checks.
func (o *preflightOptions) examine(ctx context.Context) (preflight.Report, error) {
	if o.output != "table" && o.output != "json" {
		return preflight.Report{}, fmt.Errorf("--output %q: want table or json", o.output)
	}
	agent, err := agentPathOr(o.agentPath)
	if err != nil {
		return preflight.Report{}, err
	}
	options := preflight.Options{Role: preflight.Role(o.role), Root: o.root, StateDir: o.rootDir, RunDir: o.runDir, KubeletDir: o.kubeletDir, AgentPath: agent}
	if options.Role == preflight.CSINode {
		options.StateDir = o.stateDir
	}
	if options.RunDir == "" {
		options.RunDir = "/run/sidemount"
		if options.Role == preflight.CSINode {
			options.RunDir = "/run/sidemount/csi"
		}
	}
	if options.Role == preflight.VirtualNode {
		options.More = o.nodeChecks()
	}
	host, err := preflight.New(options)
	if err != nil {
		return preflight.Report{}, err
	}
	return host.Examine(ctx), nil
}

// nodeChecks ask those that a virtual node works with.
func (o *preflightOptions) nodeChecks() []preflight.Check {
	var checks []preflight.Check
	if o.runtimeEndpoint != "" {
		checks = append(checks, func(ctx context.Context) preflight.Result { return checkRuntime(ctx, o.runtimeEndpoint) })
	}
	if o.kubeconfig != "" {
		checks = append(checks, func(ctx context.Context) preflight.Result { return checkIdentity(ctx, o.kubeconfig, o.nodeName) })
	}
	return checks
}

func (o *preflightOptions) print(w io.Writer, r preflight.Report) error {
	write := r.WriteTable
	if o.output == "json" {
		write = r.WriteJSON
	}
	if err := write(w); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if !r.Usable() {
		return errUnusable
	}
	return nil
}

// runtimeCheckTimeout bounds each question to the runtime.
const runtimeCheckTimeout = 5 * time.Second

// checkRuntime asks the runtime who it is and how.
func checkRuntime(ctx context.Context, endpoint string) preflight.Result {
	const check = "container runtime"
	const cure = "install and start containerd (or another CRI runtime), with its CRI plugin enabled, and name its socket in --runtime-endpoint"
	bad := func(found, cure string) preflight.Result {
		return preflight.Result{Check: check, Status: preflight.Missing, Found: found, Cure: cure}
	}
	runtime, err := cri.New(cri.Options{Endpoint: endpoint, Node: "preflight", Timeout: runtimeCheckTimeout})
	if err != nil {
		return bad(err.Error(), cure)
	}
	defer func() { _ = runtime.Close() }() // nothing was changed by it
	ctx, cancel := context.WithTimeout(ctx, runtimeCheckTimeout)
	defer cancel()
	who, err := runtime.Version(ctx)
	if err != nil {
		return bad(endpoint+" does not answer: "+cri.Message(err), cure)
	}
	name := who.Name + " " + who.Version
	status, err := runtime.Status(ctx)
	switch {
	case err != nil:
		return bad(name+" does not tell its status: "+cri.Message(err), "see the runtime's log")
	case !status.Runtime.OK:
		return bad(name+" is not ready: "+status.Runtime.Message, "see the runtime's log")
	case !status.Network.OK:
		return bad(name+" has no pod network: "+status.Network.Message, "install the CNI plugins in /opt/cni/bin and a configuration in /etc/cni/net.d")
	}
	return preflight.Result{Check: check, Status: preflight.OK, Found: name + " is ready, and its network"}
}

// checkIdentity asks the API server whom it takes this node for.
func checkIdentity(ctx context.Context, kubeconfig, nodeName string) preflight.Result {
	const check = "identity"
	bad := func(status preflight.Status, found, cure string) preflight.Result {
		return preflight.Result{Check: check, Status: status, Found: found, Cure: cure}
	}
	kubeconfig, err := filepath.Abs(kubeconfig)
	if err != nil {
		return bad(preflight.Missing, err.Error(), "name the kubeconfig by its whole path")
	}
	if nodeName, err = nodeNameOr(nodeName); err != nil {
		return bad(preflight.Missing, err.Error(), "give --node-name")
	}
	clients, err := connect(kubeconfig)
	if err != nil {
		return bad(preflight.Missing, err.Error(), "write a kubeconfig of the node's identity (docs/install.md)")
	}
	review, err := clients.heartbeats.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return bad(preflight.Missing, clients.host+" does not answer this identity: "+err.Error(), "see whether the server can be reached, and the certificate or token is valid")
	}
	if got, want := review.Status.UserInfo.Username, "system:node:"+nodeName; got != want {
		return bad(preflight.Warning, "the API server takes this node for "+got, "use an identity "+want+" in the group system:nodes: the node then reads only what its pods refer to")
	}
	return preflight.Result{Check: check, Status: preflight.OK, Found: review.Status.UserInfo.Username + " at " + clients.host}
}
