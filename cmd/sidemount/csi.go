package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/component-base/metrics/legacyregistry"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/csi/endpoint"
	"github.com/sidemount/sidemount/node"
)

func newCSICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "csi",
		Short: "Run the CSI driver of ordinary nodes: volumes are shared by all pods of a node, each served by a Mount Pod",
	}
	cmd.AddCommand(newCSINodeCommand(), newCSIControllerCommand())
	return cmd
}

// csiOptions are the flags that both services have.
type csiOptions struct {
	endpoint, driverName           string
	kubeconfig                     string
	juicefsImage, passthroughImage string
	metricsAddress                 string
	logLevel, logFormat            string
}

func (o *csiOptions) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.driverName, "driver-name", csi.DefaultName, "name of the driver; csi.juicefs.com takes over the volumes of the JuiceFS CSI driver")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the driver's identity (default: the pod's service account)")
	f.StringVar(&o.juicefsImage, "juicefs-image", "", "image of the JuiceFS client (default: the one of this version)")
	f.StringVar(&o.passthroughImage, "passthrough-image", "", "image in which the passthrough client runs (default: a pause image)")
	f.StringVar(&o.metricsAddress, "metrics-address", "", "address for /metrics, /healthz and /readyz, e.g. :9090 (default: none)")
	f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
}

// csiDriver is a driver that is put together.
type csiDriver struct {
	parts
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
}

func newCSIDriver() *csiDriver {
	d := &csiDriver{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sidemount_csi_call_seconds",
			Help:    "Time of the calls of the container storage interface, by method and gRPC code",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"method", "code"}),
	}
	d.registry.MustRegister(d.calls, buildInfo())
	return d
}

// serve adds the CSI socket and the port for metrics. The checks are what the driver needs, besides that socket, to be ready.
func (d *csiDriver) serve(o *csiOptions, s csi.Options, readiness ...node.HealthCheck) error {
	s.Endpoint, s.Name, s.Version = o.endpoint, o.driverName, version
	s.Observe = func(method, code string, took time.Duration) {
		d.calls.WithLabelValues(method, code).Observe(took.Seconds())
	}
	server, err := csi.New(s)
	if err != nil {
		return err
	}
	d.add("csi", server.Run)
	if o.metricsAddress == "" {
		return nil
	}
	path, err := endpoint.Path(o.endpoint)
	if err != nil {
		return err
	}
	checks := []node.HealthCheck{{Name: "csi", Check: func(ctx context.Context) error { return askPlugin(ctx, path) }}}
	gatherer := prometheus.Gatherers{d.registry, legacyregistry.DefaultGatherer}
	d.add("metrics", metricsServer{address: o.metricsAddress, gatherer: gatherer, checks: checks, readiness: readiness}.Run)
	return nil
}

// askTimeout bounds the question whether the driver's own socket answers.
const askTimeout = 2 * time.Second

// askPlugin asks the driver's own socket, as the kubelet would.
func askPlugin(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the answer is there
	if _, err := spec.NewIdentityClient(conn).Probe(ctx, &spec.ProbeRequest{}); err != nil {
		return fmt.Errorf("the driver's socket does not answer: %w", err)
	}
	return nil
}
