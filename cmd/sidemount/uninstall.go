package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/csi/mountpod"
)

// errMounted is what check-unused fails with.
var errMounted = errors.New("volumes are mounted on ordinary nodes")

// checkUnusedOptions are the flags of "sidemount check-unused".
type checkUnusedOptions struct {
	kubeconfig, namespace, driverName string
	wait                              time.Duration
}

func newCheckUnusedCommand() *cobra.Command {
	o := &checkUnusedOptions{}
	cmd := &cobra.Command{
		Use:   "check-unused",
		Short: "Fail while a volume is mounted on an ordinary node, as a guard before the CSI driver is removed",
		Long: "Fail while a volume is mounted on an ordinary node.\n\nWithout the driver nobody could unmount it, and its pods could not end. " +
			"A volume is mounted as long as there is a Mount Pod for it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			clients, err := connect(o.kubeconfig)
			if err != nil {
				return err
			}
			return o.check(cmd.Context(), clients.pods)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of an identity that may list pods in --namespace (default: the pod's service account)")
	f.StringVar(&o.namespace, "namespace", "sidemount", "namespace of the CSI driver and its Mount Pods")
	f.StringVar(&o.driverName, "driver-name", csi.DefaultName, "name of the driver")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for volumes that are being unmounted; 0 looks once")
	return cmd
}

// check returns an error that names the Mount Pods which are left when the time is over.
func (o *checkUnusedOptions) check(ctx context.Context, client kubernetes.Interface) error {
	selector := labels.Set{mountpod.NameLabel: mountpod.NameValue, mountpod.DriverLabel: o.driverName}.String()
	deadline := time.Now().Add(o.wait)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		pods, err := client.CoreV1().Pods(o.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return fmt.Errorf("list mount pods in namespace %s: %w", o.namespace, err)
		}
		if len(pods.Items) == 0 {
			return nil
		}
		if !time.Now().Before(deadline) {
			return stillMounted(pods.Items)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func stillMounted(pods []corev1.Pod) error {
	lines := make([]string, 0, len(pods))
	for _, p := range pods {
		lines = append(lines, fmt.Sprintf("%s on %s by Mount Pod %s/%s", p.Annotations[mountpod.VolumeAnnotation], p.Spec.NodeName, p.Namespace, p.Name))
	}
	slices.Sort(lines)
	return fmt.Errorf("%w: %s. Delete the pods that use them first; without the driver they could not end. "+
		"`helm uninstall --no-hooks` removes it nevertheless", errMounted, strings.Join(lines, "; "))
}
