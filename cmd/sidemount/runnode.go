package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/node"
	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/cri/cgroup"
	"github.com/sidemount/sidemount/provider/host"
	"github.com/sidemount/sidemount/provider/object"
	"github.com/sidemount/sidemount/provider/volume"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/session"
)

// kubernetesVersion is the version whose kubelet the node behaves like.
const kubernetesVersion = "v1.36.3"

// runtimeTimeout is how long the container runtime may take to answer when the node starts.
const runtimeTimeout = time.Minute

// virtualNode is a virtual node put together, from the bottom to the top.
type virtualNode struct {
	options *nodeOptions
	clients *clients
	parts

	metrics  *metrics
	recorder *recorder
	runtime  *cri.Runtime
	listers  *listers
	objects  *object.Store
	volumes  *volume.Manager
	sessions *broker.Broker
	keeper   *session.Keeper
	host     *host.Host
	engine   *provider.Engine
	pods     *provider.Controller
	node     *node.Node
}

// runNode runs a virtual node until ctx ends. Its pods go on then.
func runNode(ctx context.Context, o *nodeOptions) error {
	n := &virtualNode{options: o, metrics: newMetrics()}
	for _, step := range []func(context.Context) error{
		n.connectCluster, n.connectRuntime, n.describeNode,
		n.watchObjects, n.makeVolumes, n.holdSessions, n.buildHost, n.startEngine, n.keepHouse, n.serveAPI, n.serveMetrics,
	} {
		if err := step(ctx); err != nil {
			return n.ended(ctx, err)
		}
	}
	// Calls under way have ended with the parts; a connection that cannot be closed ends with the process.
	defer func() { _ = n.runtime.Close() }()
	log.G(ctx).WithField("node", o.nodeName).WithField("version", version).Info("virtual node starts")
	err := n.runAll(ctx)
	log.G(ctx).WithField("node", o.nodeName).Info("virtual node ends, its pods go on")
	return err
}

// ended is the error of a start that failed; one that was interrupted has not failed.
func (n *virtualNode) ended(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}

// connectCluster makes the clients and finds the node's own address.
func (n *virtualNode) connectCluster(ctx context.Context) (err error) {
	if n.clients, err = connect(n.options.kubeconfig); err != nil {
		return err
	}
	if n.options.nodeIP == "" {
		if n.options.nodeIP, err = addressTowards(ctx, n.clients.host); err != nil {
			return err
		}
	}
	if net.ParseIP(n.options.nodeIP) == nil {
		return fmt.Errorf("--node-ip %q is not an IP address", n.options.nodeIP)
	}
	n.recorder = newRecorder(n.clients.events, n.options.nodeName)
	n.add("events", n.recorder.Run)
	return nil
}

// addressTowards returns the address from which this host reaches the server. Nothing is sent: connecting a datagram socket only
// looks up the route.
func addressTowards(ctx context.Context, server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("find the node's address: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	conn, err := new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return "", fmt.Errorf("find the node's address: %w", err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String(), nil
}

func (n *virtualNode) connectRuntime(ctx context.Context) (err error) {
	if n.runtime, err = cri.New(cri.Options{Endpoint: n.options.runtimeEndpoint, Node: n.options.nodeName}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	return n.runtime.Connect(ctx)
}

// describeNode makes the Node object of flags, host and runtime.
func (n *virtualNode) describeNode(ctx context.Context) error {
	o := n.options
	if err := os.MkdirAll(o.rootDir, 0o755); err != nil {
		return fmt.Errorf("make --root-dir: %w", err)
	}
	object, err := o.object()
	if err != nil {
		return err
	}
	runtime, err := n.runtime.Version(ctx)
	if err != nil {
		return err
	}
	status, err := n.runtime.Status(ctx)
	if err != nil {
		return err
	}
	object.RuntimeVersion = runtime.Name + "://" + runtime.Version
	object.RuntimeHandlers = runtimeHandlers(status)
	machine, err := node.ReadHost(o.rootDir)
	if err != nil {
		return err
	}
	n.node, err = node.New(node.Options{
		Object:     object,
		Host:       machine,
		Client:     n.clients.heartbeats,
		Health:     runtimeHealth{n.runtime},
		Dir:        o.rootDir,
		CSIDrivers: csiDrivers(o),
	})
	n.add("node", func(ctx context.Context) error { return n.node.Run(ctx) })
	return err
}

func csiDrivers(o *nodeOptions) []storagev1.CSINodeDriver {
	drivers := make([]storagev1.CSINodeDriver, 0, len(o.driverNames))
	for _, name := range o.driverNames {
		drivers = append(drivers, storagev1.CSINodeDriver{Name: name, NodeID: o.nodeName})
	}
	return drivers
}

// watchObjects follows what pods refer to.
func (n *virtualNode) watchObjects(ctx context.Context) (err error) {
	n.listers = newListers(n.clients.pods)
	n.add("services and runtime classes", n.listers.Run)
	if n.objects, err = object.New(object.Options{Client: n.clients.pods}); err != nil {
		return err
	}
	n.add("secrets and configmaps", n.objects.Run)
	return nil
}

func (n *virtualNode) makeVolumes(ctx context.Context) error {
	tokens, err := object.NewTokens(object.TokensOptions{Client: n.clients.pods})
	if err != nil {
		return err
	}
	n.volumes, err = volume.New(volume.Options{
		Root:              n.options.rootDir,
		Objects:           n.objects,
		Tokens:            tokens,
		TrustBundles:      object.NewTrustBundles(n.clients.pods),
		Allocatable:       n.allocatable,
		RecursiveReadOnly: n.recursiveReadOnly(ctx),
		Failed:            n.recorder.volumesNotRefreshed,
	})
	n.add("volumes", func(ctx context.Context) error { return n.volumes.Run(ctx) })
	return err
}

func (n *virtualNode) allocatable() corev1.ResourceList { return n.node.Object().Status.Allocatable }

// holdSessions starts the broker, and the keeper that opens sessions for pods.
func (n *virtualNode) holdSessions(ctx context.Context) (err error) {
	o := n.options
	agentDir := filepath.Join(o.rootDir, "bin")
	if err := installAgent(o.agentPath, agentDir); err != nil {
		return err
	}
	n.sessions, err = broker.New(broker.Options{
		RunDir:    o.runDir,
		StateDir:  filepath.Join(o.rootDir, "sessions"),
		AgentPath: filepath.Join(agentDir, agentName),
		Orphan:    o.orphanTimeout,
		// Sidecars are injected so that their applications receive mounts; those that run get the volume back this way.
		Cover: true,
		OnEvent: func(e broker.Event) {
			n.metrics.sessionEvent(e)
			n.keeper.Notify(e)
		},
	})
	if err != nil {
		return err
	}
	n.add("sessions", n.sessions.Run)
	resolver, err := sidecar.NewResolver(sidecar.Options{
		Objects: apiObjects{n.clients.pods},
		Drivers: o.driverNames,
		Version: imageTag(),
		Images:  o.images(),
	})
	if err != nil {
		return err
	}
	n.keeper, err = session.New(session.Options{
		Resolver: resolver,
		Broker:   n.sessions,
		AgentDir: agentDir,
		TargetDir: func(uid types.UID, volume string) string {
			return filepath.Join(n.volumes.PodDir(uid), "volumes", "sidemount.io~fuse", volume)
		},
		StateDir: filepath.Join(o.rootDir, "prepared"),
		Recorder: n.recorder,
		Wake:     func(uid types.UID) { n.engine.Wake(uid) },
		Again:    func(uid types.UID) { n.engine.Again(uid) },
		Waiting:  func(uid types.UID, container string) string { return n.engine.Waiting(uid, container) },
	})
	n.add("keeper of sessions", func(ctx context.Context) error { return n.keeper.Run(ctx) })
	return err
}

// buildHost joins what runs containers.
func (n *virtualNode) buildHost(ctx context.Context) error {
	o := n.options
	machine, err := cri.ProbeHost("/")
	if err != nil {
		return err
	}
	driver, err := n.runtime.CgroupDriver(ctx)
	if err != nil {
		return err
	}
	cgroups, err := cgroup.New(cgroup.Options{Parent: o.cgroupParent, Driver: cgroup.Driver(driver)})
	if err != nil {
		return err
	}
	dns, err := nameResolution(o)
	if err != nil {
		return err
	}
	n.host, err = host.New(host.Options{
		Runtime:        n.runtime,
		Volumes:        n.volumes,
		Objects:        n.objects,
		Recorder:       n.recorder,
		Root:           o.rootDir,
		LogDir:         o.podLogsDir,
		Services:       n.listers.services,
		RuntimeHandler: n.listers.runtimeHandler,
		Cgroups:        cgroups,
		DNS:            dns,
		Machine:        machine,
		NodeHosts:      func() ([]byte, error) { return os.ReadFile("/etc/hosts") },
		HostIPs:        func() []string { return []string{o.nodeIP} },
		Allocatable:    n.allocatable,
		SeccompDefault: o.seccompDefault,
	})
	return err
}

func nameResolution(o *nodeOptions) (cri.DNS, error) {
	dns := cri.DNS{ClusterServers: o.clusterDNS, ClusterDomain: o.clusterDomain}
	if o.resolvConf == "" {
		return dns, nil
	}
	content, err := os.ReadFile(o.resolvConf)
	if err != nil {
		return dns, fmt.Errorf("--resolv-conf: %w", err)
	}
	dns.Host = cri.ParseResolvConf(content)
	return dns, nil
}

// startEngine assembles the engine and what watches the node's pods. It begins when sessions are known and services listed.
func (n *virtualNode) startEngine(context.Context) (err error) {
	o := n.options
	n.engine, err = provider.NewEngine(provider.Options{
		NodeName:          o.nodeName,
		Client:            n.clients.pods.CoreV1(),
		Recorder:          n.recorder,
		Runtime:           n.host,
		Images:            n.host,
		Volumes:           n.host,
		Preparer:          preparer{n.keeper},
		HostIPs:           func() []string { return []string{o.nodeIP} },
		Allocatable:       n.allocatable,
		ParallelPulls:     o.parallelPulls,
		ParallelSandboxes: o.parallelSandboxes,
		OnRunning:         n.metrics.podRunning,
	})
	if err != nil {
		return err
	}
	// A pod that waits for a Secret or ConfigMap is tried at once when that appears.
	n.objects.OnChange(func(uid types.UID) { n.engine.Wake(uid) })
	n.pods, err = provider.NewController(provider.ControllerOptions{Client: n.clients.pods, Engine: n.engine})
	n.add("pods", func(ctx context.Context) error {
		if err := n.listers.Wait(ctx); err != nil {
			return err
		}
		return n.pods.Run(ctx)
	})
	return err
}

// serveAPI assembles the kubelet's HTTPS API.
func (n *virtualNode) serveAPI(context.Context) error {
	o := n.options
	auth, err := node.Delegate(n.clients.pods, o.clientCAFile)
	if err != nil {
		return err
	}
	n.add("authentication", auth.Run)
	certificates, err := n.certificates()
	if err != nil {
		return err
	}
	pods := enginePods{n.engine}
	streams := runtimeStreams{engine: n.engine, runtime: n.runtime}
	logs := &containerLogs{engine: n.engine, runtime: n.runtime}
	n.metrics.watch(n.engine, n.sessions)
	server, err := node.NewServer(node.ServerOptions{
		Address:      net.JoinHostPort(o.address, strconv.Itoa(int(o.port))),
		NodeName:     o.nodeName,
		Certificates: certificates,
		Auth:         auth.Auth,
		Pods:         pods,
		Logs:         logs,
		Streams:      streams,
		Runner:       streams,
		Stats:        &summaries{engine: n.engine, runtime: n.runtime, usage: node.NewUsage(o.nodeName, o.rootDir)},
		Metrics:      n.metrics.gatherer(),
		Config:       kubeletConfig(o, n.node.Object()),
		Checks:       n.checks(),
	})
	if err != nil {
		return err
	}
	n.add("https api", func(ctx context.Context) error {
		defer logs.Close()
		return server.Run(ctx)
	})
	return nil
}

func (n *virtualNode) certificates() (node.Certificates, error) {
	o := n.options
	if o.tlsCertFile != "" {
		return node.NewCertificateFiles(o.tlsCertFile, o.tlsPrivateKeyFile)
	}
	dir := filepath.Join(o.rootDir, "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of serving certificates: %w", err)
	}
	return node.NewRotatedCertificate(n.clients.pods, dir, o.nodeName, n.node.Object().Status.Addresses)
}

func (n *virtualNode) checks() []node.HealthCheck {
	return []node.HealthCheck{
		{Name: "syncloop", Check: func(context.Context) error {
			if !n.pods.Synced() {
				return errors.New("the node's pods have not been listed yet")
			}
			return nil
		}},
		{Name: "node", Check: func(ctx context.Context) error { return n.node.Ping(ctx) }},
	}
}

// serveMetrics serves a local port without authentication, if one is wanted.
func (n *virtualNode) serveMetrics(context.Context) error {
	if n.options.metricsAddress != "" {
		n.add("metrics", metricsServer{address: n.options.metricsAddress, gatherer: n.metrics.gatherer(), checks: n.checks()}.Run)
	}
	return nil
}
