package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/virtual-kubelet/virtual-kubelet/log"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/csi/endpoint"
	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/podsession"
	"github.com/sidemount/sidemount/csi/registration"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/node"
)

// csiNodeOptions are the flags of "sidemount csi node".
type csiNodeOptions struct {
	csiOptions
	nodeName, namespace             string
	kubeletDir, stateDir, runDir    string
	agentPath                       string
	priorityClass, serviceAccount   string
	imagePullSecrets                []string
	pullPolicy                      string
	hostNetwork, sidecars           bool
	maxVolumes                      int64
	topology                        map[string]string
	registrationDir, registeredPath string
	orphanTimeout                   time.Duration
}

func newCSINodeCommand() *cobra.Command {
	o := &csiNodeOptions{}
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run the node service: publish volumes into the pods of this node",
		Long: "Run the node service of the CSI driver.\n\nIt registers itself with the kubelet, needs no other container beside it, and must see the kubelet's " +
			"directory, --state-dir and --run-dir at the paths of the host, the first two with bidirectional mount propagation.\n\n" +
			"Every flag can also be given by an environment variable: --node-name by SIDEMOUNT_NODE_NAME.\n" +
			"The end of the process leaves the mounts working; the next one takes them over.",
		Args: cobra.NoArgs,
		RunE: role(o.complete, &o.logLevel, &o.logFormat, func(ctx context.Context) error { return runCSINode(ctx, o) }),
	}
	o.addTo(cmd.Flags())
	return cmd
}

func (o *csiNodeOptions) addTo(f *pflag.FlagSet) {
	o.csiOptions.addTo(f)
	f.StringVar(&o.endpoint, "endpoint", "", "the driver's socket (default: plugins/<driver>/csi.sock below --kubelet-dir)")
	f.StringVar(&o.nodeName, "node-name", "", "name of the Node object (default: the host's name in lower case)")
	f.StringVar(&o.namespace, "namespace", "", "namespace of the Mount Pods; required")
	f.StringVar(&o.kubeletDir, "kubelet-dir", "/var/lib/kubelet", "the kubelet's root directory")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/sidemount/csi", "directory of all state and of the mounts; two drivers on one node need two")
	f.StringVar(&o.runDir, "run-dir", "/run/sidemount/csi", "directory of sockets")
	f.StringVar(&o.agentPath, "agent-path", "", "the program sidemount-agent, which is copied to --state-dir (default: beside this program)")
	f.StringVar(&o.priorityClass, "mount-priority-class", "", "priority class of Mount Pods; \"none\" for none (default: system-node-critical)")
	f.StringVar(&o.serviceAccount, "mount-service-account", "", "service account of Mount Pods whose volume names none (default: the namespace's)")
	f.StringSliceVar(&o.imagePullSecrets, "image-pull-secret", nil, "Secret in --namespace with credentials for the clients' images; may be repeated")
	f.StringVar(&o.pullPolicy, "mount-image-pull-policy", string(corev1.PullIfNotPresent), "when Mount Pods pull their image: Always, IfNotPresent or Never")
	f.BoolVar(&o.hostNetwork, "mount-host-network", false, "run Mount Pods in the network of the host")
	f.BoolVar(&o.sidecars, "sidecars", false, "serve the volumes of pods that bring sidecars of their own by these (sidemount.io/injection=node); needs the right to get pods")
	f.Int64Var(&o.maxVolumes, "max-volumes", 0, "volumes of the driver that pods of this node may have; 0 for any number")
	addOrphanTimeout(f, &o.orphanTimeout)
	f.StringToStringVar(&o.topology, "topology", nil, "topology of this node, as labels that the kubelet puts on the Node, e.g. topology.example.com/rack=7")
	f.StringVar(&o.registrationDir, "registration-dir", "", "the kubelet's directory of plugins (default: plugins_registry below --kubelet-dir)")
	f.StringVar(&o.registeredPath, "kubelet-endpoint", "", "--endpoint as the kubelet sees it (default: the same)")
}

// complete fills in what depends on the host and refuses what cannot work.
func (o *csiNodeOptions) complete() (err error) {
	if o.namespace == "" {
		return errors.New("--namespace is required: Mount Pods are made there")
	}
	if o.nodeName, err = nodeNameOr(o.nodeName); err != nil {
		return err
	}
	if o.agentPath, err = agentPathOr(o.agentPath); err != nil {
		return err
	}
	for name, dir := range map[string]string{"kubelet-dir": o.kubeletDir, "state-dir": o.stateDir, "run-dir": o.runDir} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("--%s %q: want an absolute path", name, dir)
		}
	}
	if err := checkOrphanTimeout(o.orphanTimeout); err != nil {
		return err
	}
	switch corev1.PullPolicy(o.pullPolicy) {
	case corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		return fmt.Errorf("--mount-image-pull-policy %q: want Always, IfNotPresent or Never", o.pullPolicy)
	}
	if o.endpoint == "" {
		o.endpoint = filepath.Join(o.kubeletDir, "plugins", o.driverName, "csi.sock")
	}
	if o.registeredPath == "" {
		if o.registeredPath, err = endpoint.Path(o.endpoint); err != nil {
			return fmt.Errorf("--endpoint: %w", err)
		}
	}
	if o.registrationDir == "" {
		o.registrationDir = filepath.Join(o.kubeletDir, "plugins_registry")
	}
	return nil
}

// csiNode is the node service, put together.
type csiNode struct {
	*csiDriver
	options      *csiNodeOptions
	clients      *clients
	recorder     *recorder
	broker       *broker.Broker
	keeper       *mountpod.Keeper
	podSessions  *podsession.Keeper
	registration *registration.Registration
}

// runCSINode runs the node service until ctx ends. Mounts and Mount Pods go on then.
func runCSINode(ctx context.Context, o *csiNodeOptions) error {
	// Most of its life it waits; what a start has allocated shall not stay.
	debug.SetGCPercent(40)
	unlock, err := lockState(o.stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	n := &csiNode{csiDriver: newCSIDriver(), options: o}
	for _, step := range []func(context.Context) error{n.connectCluster, n.holdSessions, n.keepMountPods, n.keepPodSessions, n.serveCSI, n.register} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	logger := log.G(ctx).WithField("node", o.nodeName).WithField("driver", o.driverName)
	logger.WithField("version", version).Info("csi node service starts")
	err = n.runAll(ctx)
	logger.Info("csi node service ends, its mounts go on")
	return err
}

// lockState keeps a second driver from working on the same state. The lock ends with the process.
func lockState(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make --state-dir: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock --state-dir: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another driver works with it; give each driver of a node a directory of its own")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock --state-dir %s: %w", dir, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

func (n *csiNode) connectCluster(context.Context) (err error) {
	if n.clients, err = connect(n.options.kubeconfig); err != nil {
		return err
	}
	n.recorder = newRecorder(n.clients.events, n.options.nodeName)
	n.add("events", n.recorder.Run)
	return nil
}

// holdSessions starts the broker, after the agent is where Mount Pods find it.
func (n *csiNode) holdSessions(context.Context) (err error) {
	o := n.options
	if err := installAgent(o.agentPath, n.agentDir()); err != nil {
		return err
	}
	n.broker, err = broker.New(broker.Options{
		RunDir:    o.runDir,
		StateDir:  filepath.Join(o.stateDir, "sessions"),
		AgentPath: n.agent(),
		Orphan:    o.orphanTimeout,
		OnEvent: func(e broker.Event) {
			n.keeper.Notify(e)
			n.podSessions.Notify(e)
		},
	})
	if err != nil {
		return err
	}
	n.add("sessions", n.broker.Run)
	return nil
}

func (n *csiNode) agentDir() string { return filepath.Join(n.options.stateDir, "bin") }
func (n *csiNode) agent() string    { return filepath.Join(n.agentDir(), agentName) }

func (n *csiNode) keepMountPods(ctx context.Context) error {
	o := n.options
	uid, err := n.nodeUID(ctx)
	if err != nil {
		return err
	}
	var pullSecrets []corev1.LocalObjectReference
	for _, name := range o.imagePullSecrets {
		pullSecrets = append(pullSecrets, corev1.LocalObjectReference{Name: name})
	}
	n.keeper, err = mountpod.New(mountpod.Options{
		Broker:           n.broker,
		Pods:             mountpod.NewCluster(n.clients.pods, o.namespace, o.nodeName, o.driverName),
		Driver:           o.driverName,
		NodeName:         o.nodeName,
		NodeUID:          uid,
		Namespace:        o.namespace,
		StateDir:         filepath.Join(o.stateDir, "shares"),
		MountsDir:        filepath.Join(o.stateDir, "mounts"),
		AgentDir:         n.agentDir(),
		PriorityClass:    o.priorityClass,
		ServiceAccount:   o.serviceAccount,
		ImagePullSecrets: pullSecrets,
		ImagePullPolicy:  corev1.PullPolicy(o.pullPolicy),
		HostNetwork:      o.hostNetwork,
		Recorder:         n.recorder,
	})
	if err != nil {
		return err
	}
	n.registry.MustRegister(n.keeper, sessionCensus{n.broker})
	n.add("mount pods", n.keeper.Run)
	return nil
}

// keepPodSessions keeps the sessions of pods with sidecars of their own.
func (n *csiNode) keepPodSessions(context.Context) (err error) {
	n.podSessions, err = podsession.New(podsession.Options{Broker: n.broker, MountsDir: filepath.Join(n.options.stateDir, "mounts"), Recorder: n.recorder})
	if err != nil {
		return err
	}
	n.add("sessions of pods", n.podSessions.Run)
	return nil
}

// nodeUID is the Node's, which is to own its Mount Pods. A driver that may not read its Node goes on without.
func (n *csiNode) nodeUID(ctx context.Context) (types.UID, error) {
	object, err := apiObjects{n.clients.pods}.Node(ctx, n.options.nodeName)
	switch {
	case apierrors.IsForbidden(err):
		log.G(ctx).WithField("node", n.options.nodeName).Warn("the driver may not get its node, Mount Pods have no owner and kubectl drain refuses them")
		return "", nil
	case err != nil:
		return "", fmt.Errorf("--node-name: get node %s: %w", n.options.nodeName, err)
	}
	return object.UID, nil
}

func (n *csiNode) serveCSI(context.Context) error {
	o := n.options
	volumes, err := o.describer(apiObjects{n.clients.pods})
	if err != nil {
		return err
	}
	var sidecars *csi.Sidecars
	if o.sidecars {
		sidecars = &csi.Sidecars{
			Driver: o.driverName, Sessions: n.podSessions, AgentDir: n.agentDir(), Pods: apiObjects{n.clients.pods}, Volumes: volumes,
		}
	}
	service, err := csi.NewNode(csi.NodeOptions{
		Sidecars:   sidecars,
		NodeName:   o.nodeName,
		KubeletDir: o.kubeletDir,
		Keeper:     n.keeper,
		Sessions:   n.broker,
		Volumes:    volumes,
		Objects:    apiObjects{n.clients.pods},
		Recorder:   n.recorder,
		AgentPath:  n.agent(),
		MaxVolumes: o.maxVolumes,
		Topology:   o.topology,
	})
	if err != nil {
		return err
	}
	return n.serve(&o.csiOptions, csi.Options{Node: service, Ready: n.keeper.Check}, n.readiness()...)
}

// readiness is what pods on this node wait for. A driver that lacks it is not restarted, since that would not help.
func (n *csiNode) readiness() []node.HealthCheck {
	return []node.HealthCheck{
		{Name: "mount pods", Check: n.keeper.Check},
		{Name: "registration", Check: func(ctx context.Context) error { return n.registration.Check(ctx) }},
	}
}

// register makes the driver known to the kubelet. That the kubelet refuses it is said in the log and does not end the driver, which
// holds mounts.
func (n *csiNode) register(context.Context) (err error) {
	o := n.options
	n.registration, err = registration.New(registration.Options{Directory: o.registrationDir, Driver: o.driverName, Endpoint: o.registeredPath})
	if err != nil {
		return err
	}
	n.add("registration", n.registration.Run)
	return nil
}
