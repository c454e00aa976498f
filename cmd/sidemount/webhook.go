package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/node"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/grant"
	"github.com/sidemount/sidemount/sidecar/webhook"
	"github.com/sidemount/sidemount/sidecar/webhook/certificate"
)

// juicefsDriver is the driver whose volumes and labels --compat serves.
const juicefsDriver = "csi.juicefs.com"

// webhookOptions are the flags of "sidemount webhook".
type webhookOptions struct {
	kubeconfig, namespace, address             string
	service, secret, configuration             string
	clusterDomain                              string
	certificateNames, podServers               []string
	driverNames                                []string
	compatible                                 bool
	agentImage, juicefsImage, passthroughImage string
	audience                                   string
	metricsAddress, logLevel, logFormat        string
}

func newWebhookCommand() *cobra.Command {
	o := &webhookOptions{}
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Run the admission webhook: sidecars for pods on serverless nodes of others",
		Long: "Run the admission webhook, and grant the pods that it has injected their volumes.\n\nIt may run several times. " +
			"Kubernetes 1.29 is needed, for native sidecars.\n\n" +
			"Every flag can also be given by an environment variable: --agent-image by SIDEMOUNT_AGENT_IMAGE.",
		Args: cobra.NoArgs,
		RunE: role(o.complete, &o.logLevel, &o.logFormat, func(ctx context.Context) error { return runWebhook(ctx, o) }),
	}
	o.addTo(cmd.Flags())
	return cmd
}

func (o *webhookOptions) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the webhook's identity (default: the pod's service account)")
	f.StringVar(&o.namespace, "namespace", "sidemount", "namespace of --service and --secret")
	f.StringVar(&o.address, "address", ":9443", "address that reviews and grants are served on, with TLS")
	f.StringVar(&o.service, "service", "sidemount-webhook", "Service by which the API server and pods reach this program")
	f.StringVar(&o.secret, "secret", "sidemount-webhook-tls", "Secret with the webhook's authority and certificate; it is made and renewed")
	f.StringVar(&o.configuration, "configuration", "sidemount-webhook", "MutatingWebhookConfiguration that is told whom to trust; empty for none")
	f.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain of the cluster")
	f.StringSliceVar(&o.certificateNames, "certificate-name", nil, "further DNS name or address in the certificate; may be repeated")
	f.StringSliceVar(&o.podServers, "pod-server", nil, "address, host:port, by which pods reach this program; may be repeated (default: --service by its address, then by its name)")
	f.StringSliceVar(&o.driverNames, "driver-name", []string{sidecar.DefaultDriver}, "CSI driver whose volumes are served; may be repeated")
	f.BoolVar(&o.compatible, "compat", false, "serve volumes of the JuiceFS CSI driver too, and honour its labels")
	f.StringVar(&o.agentImage, "agent-image", "", "image of the broker's container, with the agent at "+sidecar.GuestAgent+" (default: the one of this version)")
	f.StringVar(&o.juicefsImage, "juicefs-image", "", "image of the JuiceFS client (default: the one of this version)")
	f.StringVar(&o.passthroughImage, "passthrough-image", "", "image in which the passthrough client runs (default: a pause image)")
	f.StringVar(&o.audience, "audience", grant.Audience, "audience of the tokens that pods show")
	f.StringVar(&o.metricsAddress, "metrics-address", ":8080", "address for /metrics and /healthz without authentication; empty for none")
	f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
}

func (o *webhookOptions) complete() error {
	if o.namespace == "" || o.service == "" || o.secret == "" || o.audience == "" {
		return errors.New("--namespace, --service, --secret and --audience must not be empty")
	}
	if len(o.driverNames) == 0 {
		return errors.New("--driver-name must not be empty")
	}
	if o.agentImage == "" {
		o.agentImage = "ghcr.io/sidemount/sidemount:" + imageTag()
	}
	if o.compatible {
		o.driverNames = append(o.driverNames, juicefsDriver)
	}
	for _, server := range o.podServers {
		if _, _, err := net.SplitHostPort(server); err != nil {
			return fmt.Errorf("--pod-server %q: want host:port", server)
		}
	}
	return nil
}

// serverName is the name of the Service that every certificate has.
func (o *webhookOptions) serverName() string { return o.service + "." + o.namespace + ".svc" }

// runWebhook serves until ctx ends.
func runWebhook(ctx context.Context, o *webhookOptions) error {
	clients, err := connect(o.kubeconfig)
	if err != nil {
		return err
	}
	v, err := clients.pods.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("ask for the API server's version: %w", err)
	}
	if err := webhook.CheckVersion(v); err != nil {
		return err
	}
	host, _ := os.Hostname() // only for the source of events
	recorder := newRecorder(clients.events, host)
	certificates, err := o.certificates(clients)
	if err != nil {
		return err
	}
	reviews := newReviewMetrics()
	server, err := o.server(clients, certificates, recorder, reviews)
	if err != nil {
		return err
	}
	var all parts
	all.add("events", recorder.Run)
	all.add("certificate", certificates.Run)
	all.add("webhook", server.Run)
	if o.metricsAddress != "" {
		check := node.HealthCheck{Name: "certificate", Check: func(context.Context) error { return certificates.Check() }}
		all.add("metrics", metricsServer{address: o.metricsAddress, gatherer: reviews.gatherer(), checks: []node.HealthCheck{check}}.Run)
	}
	log.G(ctx).WithField("version", version).WithField("drivers", strings.Join(o.driverNames, ",")).Info("webhook starts")
	err = all.runAll(ctx)
	log.G(ctx).Info("webhook ends")
	return err
}

func (o *webhookOptions) certificates(c *clients) (*certificate.Keeper, error) {
	names := append([]string{o.serverName(), o.service, o.service + "." + o.namespace, o.serverName() + "." + o.clusterDomain}, o.certificateNames...)
	return certificate.New(certificate.Options{
		Client: c.heartbeats, Namespace: o.namespace, Secret: o.secret, Configuration: o.configuration, Names: names,
	})
}

func (o *webhookOptions) server(c *clients, k *certificate.Keeper, r *recorder, m *reviewMetrics) (*webhook.Server, error) {
	resolver, err := o.resolver(c, o.driverNames)
	if err != nil {
		return nil, err
	}
	// On a node with our CSI driver another driver's claims are published by that driver, which knows of no sidecars.
	nodeResolver, err := o.resolver(c, o.driverNames[:1])
	if err != nil {
		return nil, err
	}
	guest := func(ctx context.Context) (*sidecar.Guest, error) { return o.guest(ctx, c, k) }
	hook, err := webhook.New(webhook.Options{
		Resolver: resolver, NodeResolver: nodeResolver, Guest: guest, Driver: o.driverNames[0], Compatible: o.compatible, Observe: m.observe,
	})
	if err != nil {
		return nil, err
	}
	granter, err := webhook.NewGranter(webhook.GranterOptions{
		Client: c.pods, Resolver: resolver, Audience: o.audience, Guest: guest, Recorder: r,
	})
	if err != nil {
		return nil, err
	}
	return &webhook.Server{Address: o.address, Certificate: k.Certificate, Reviews: hook.Handler(), Grants: granter}, nil
}

func (o *webhookOptions) resolver(c *clients, drivers []string) (*sidecar.Resolver, error) {
	objects := apiObjects{c.pods}
	return sidecar.NewResolver(sidecar.Options{
		Objects: objects, Classes: objects, Drivers: drivers, Version: imageTag(),
		Images: map[mount.ClientKind]string{mount.JuiceFS: o.juicefsImage, mount.Passthrough: o.passthroughImage},
	})
}

// guest is how pods reach this program at the moment.
func (o *webhookOptions) guest(ctx context.Context, c *clients, k *certificate.Keeper) (*sidecar.Guest, error) {
	ca := k.CA()
	if ca == nil {
		return nil, errors.New("there is no certificate yet")
	}
	servers := o.podServers
	if len(servers) == 0 {
		s, err := c.heartbeats.CoreV1().Services(o.namespace).Get(ctx, o.service, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("find the webhook's Service: %w", err)
		}
		servers = serviceAddresses(s, o.serverName())
	}
	return &sidecar.Guest{Image: o.agentImage, Servers: servers, ServerName: o.serverName(), CA: string(ca), Audience: o.audience}, nil
}

// serviceAddresses are the Service's address, which works without DNS, and its name, which outlives the address.
func serviceAddresses(s *corev1.Service, name string) []string {
	port := "443"
	if len(s.Spec.Ports) > 0 {
		port = strconv.Itoa(int(s.Spec.Ports[0].Port))
	}
	var servers []string
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		servers = append(servers, net.JoinHostPort(ip, port))
	}
	return append(servers, net.JoinHostPort(name, port))
}

// reviewMetrics count what reviews came to.
type reviewMetrics struct {
	registry *prometheus.Registry
	reviews  *prometheus.CounterVec
}

func newReviewMetrics() *reviewMetrics {
	m := &reviewMetrics{registry: prometheus.NewRegistry(), reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidemount_webhook_reviews_total",
		Help: "Reviews of pods by outcome",
	}, []string{"outcome"})}
	m.registry.MustRegister(m.reviews, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sidemount_build_info", Help: "Always 1; the version is a label", ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 }))
	for _, outcome := range []webhook.Outcome{webhook.Injected, webhook.Skipped, webhook.Denied, webhook.Failed} {
		m.reviews.WithLabelValues(string(outcome))
	}
	return m
}

func (m *reviewMetrics) observe(outcome webhook.Outcome) {
	m.reviews.WithLabelValues(string(outcome)).Inc()
}

func (m *reviewMetrics) gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{m.registry, legacyregistry.DefaultGatherer}
}
