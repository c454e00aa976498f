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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"

	"github.com/sidemount/sidemount/csi"
	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/sidecar"
)

// errMounted is what check-unused fails with.
var errMounted = errors.New("volumes are mounted on ordinary nodes")

// checkUnusedOptions are the flags of "sidemount check-unused".
type checkUnusedOptions struct {
	kubeconfig, namespace, driverName string
	sidecars                          bool
	wait                              time.Duration
}

func newCheckUnusedCommand() *cobra.Command {
	o := &checkUnusedOptions{}
	cmd := &cobra.Command{
		Use:   "check-unused",
		Short: "Fail while a volume is mounted on an ordinary node, as a guard before the CSI driver is removed",
		Long: "Fail while a volume is mounted on an ordinary node.\n\nWithout the driver nobody could unmount it, and its pods could not end. " +
			"A volume is mounted as long as there is a Mount Pod for it, or a pod with a sidecar of its own (--sidecars).",
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
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of an identity that may list pods in --namespace, with --sidecars in all (default: the pod's service account)")
	f.StringVar(&o.namespace, "namespace", "sidemount", "namespace of the CSI driver and its Mount Pods")
	f.StringVar(&o.driverName, "driver-name", csi.DefaultName, "name of the driver")
	f.BoolVar(&o.sidecars, "sidecars", false, "also look for pods that bring sidecars of their own, in all namespaces")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for volumes that are being unmounted; 0 looks once")
	return cmd
}

// check returns an error that names what is left in use when the time is over.
func (o *checkUnusedOptions) check(ctx context.Context, client kubernetes.Interface) error {
	deadline := time.Now().Add(o.wait)
	pause := time.Second
	if o.sidecars {
		pause = 5 * time.Second // each look reads all pods of the cluster
	}
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		used, err := o.used(ctx, client)
		if err != nil {
			return err
		}
		if len(used) == 0 {
			return nil
		}
		if !time.Now().Before(deadline) {
			return stillMounted(used)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// used says of each volume where it is mounted and for whom.
func (o *checkUnusedOptions) used(ctx context.Context, client kubernetes.Interface) ([]string, error) {
	used, err := o.mountPods(ctx, client)
	if err != nil || !o.sidecars {
		return used, err
	}
	own, err := o.ownSidecars(ctx, client)
	return append(used, own...), err
}

func (o *checkUnusedOptions) mountPods(ctx context.Context, client kubernetes.Interface) ([]string, error) {
	selector := labels.Set{mountpod.NameLabel: mountpod.NameValue, mountpod.DriverLabel: o.driverName}.String()
	pods, err := client.CoreV1().Pods(o.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list mount pods in namespace %s: %w", o.namespace, err)
	}
	var used []string
	for _, p := range pods.Items {
		used = append(used, fmt.Sprintf("%s on %s by Mount Pod %s/%s", p.Annotations[mountpod.VolumeAnnotation], p.Spec.NodeName, p.Namespace, p.Name))
	}
	return used, nil
}

// ownSidecars finds pods on ordinary nodes that bring the sidecars of their volumes. One that has ended is unmounted by its kubelet, and one without a node has
// nothing mounted yet.
func (o *checkUnusedOptions) ownSidecars(ctx context.Context, client kubernetes.Interface) ([]string, error) {
	list := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
	})
	var used []string
	err := list.EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
		p, ok := object.(*corev1.Pod)
		if !ok || p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			return nil
		}
		for _, volume := range sidecar.HandedVolumes(p, o.driverName) {
			used = append(used, fmt.Sprintf("%s on %s by Pod %s/%s", volume, p.Spec.NodeName, p.Namespace, p.Name))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	return used, nil
}

func stillMounted(used []string) error {
	slices.Sort(used)
	return fmt.Errorf("%w: %s. Delete the pods that use them first; without the driver they could not end. "+
		"`helm uninstall --no-hooks` removes it nevertheless", errMounted, strings.Join(used, "; "))
}
