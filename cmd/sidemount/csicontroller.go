package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/sidecar"
)

// csiControllerOptions are the flags of "sidemount csi controller".
type csiControllerOptions struct {
	csiOptions
	workerSocket string
}

func newCSIControllerCommand() *cobra.Command {
	o := &csiControllerOptions{}
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run the controller service: make and delete volumes and snapshots",
		Long: "Run the controller service of the CSI driver.\n\nThe work is done by the client's image: \"sidemount-juicefs worker\" runs beside this program and " +
			"serves --worker-socket. Both keep no state, need no privilege and may run several times.\n\n" +
			"Every flag can also be given by an environment variable: --worker-socket by SIDEMOUNT_WORKER_SOCKET.",
		Args: cobra.NoArgs,
		RunE: role(o.complete, &o.logLevel, &o.logFormat, func(ctx context.Context) error { return runCSIController(ctx, o) }),
	}
	o.addTo(cmd.Flags())
	return cmd
}

func (o *csiControllerOptions) addTo(f *pflag.FlagSet) {
	o.csiOptions.addTo(f)
	f.StringVar(&o.endpoint, "endpoint", "unix:///csi/csi.sock", "the driver's socket")
	f.StringVar(&o.workerSocket, "worker-socket", "", "socket of the client's worker; required")
}

func (o *csiControllerOptions) complete() error {
	if !filepath.IsAbs(o.workerSocket) {
		return errors.New("--worker-socket is required, an absolute path")
	}
	return nil
}

// runCSIController runs the controller service until ctx ends.
func runCSIController(ctx context.Context, o *csiControllerOptions) error {
	clients, err := connect(o.kubeconfig)
	if err != nil {
		return err
	}
	objects := apiObjects{clients.pods}
	volumes, err := o.describer(objects)
	if err != nil {
		return err
	}
	d := newCSIDriver()
	events := newRecorder(clients.events, "")
	d.add("events", events.Run)
	service, err := csi.NewController(csi.ControllerOptions{
		Admin: admin.NewClient(o.workerSocket), Volumes: volumes, Claims: objects, Nodes: objects, Recorder: events,
	})
	if err != nil {
		return err
	}
	if err := d.serve(&o.csiOptions, csi.Options{Controller: service}); err != nil {
		return err
	}
	logger := log.G(ctx).WithField("driver", o.driverName)
	logger.WithField("version", version).Info("csi controller service starts")
	err = d.runAll(ctx)
	logger.Info("csi controller service ends")
	return err
}

// describer understands volumes as all nodes do.
func (o *csiOptions) describer(objects sidecar.Objects) (*sidecar.Resolver, error) {
	return sidecar.NewResolver(sidecar.Options{
		Objects: objects, Drivers: []string{o.driverName}, Version: imageTag(),
		Images: map[mount.ClientKind]string{mount.JuiceFS: o.juicefsImage, mount.Passthrough: o.passthroughImage},
	})
}

func (o apiObjects) Node(ctx context.Context, name string) (*corev1.Node, error) {
	return permitted(ctx, name, o.client.CoreV1().Nodes().Get)
}
