package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// keepCSINode makes the CSINode object for each Node object that the API shows, until ctx ends. The garbage collector takes
// the CSINode of a deleted Node away, so a new Node needs a new one.
func (n *Node) keepCSINode(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case node := <-n.registered:
			n.insistOnCSINode(ctx, node)
		}
	}
}

// insistOnCSINode tries until it succeeds, a newer Node object takes over or ctx ends.
func (n *Node) insistOnCSINode(ctx context.Context, node *corev1.Node) {
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 8, Cap: time.Minute}
	for {
		err := n.ensureCSINode(ctx, node)
		if err == nil {
			return
		}
		pause := backoff.Step()
		log.G(ctx).WithError(err).WithField("node", node.Name).WithField("retry", pause).Warn("cannot write the csinode object")
		select {
		case <-ctx.Done():
			return
		case node = <-n.registered:
		case <-time.After(pause):
		}
	}
}

// ensureCSINode brings the CSINode object to what it must be for this Node. Drivers that others have registered stay.
func (n *Node) ensureCSINode(ctx context.Context, node *corev1.Node) error {
	csinodes := n.options.Client.StorageV1().CSINodes()
	current, err := csinodes.Get(ctx, node.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return n.createCSINode(ctx, node)
	case err != nil:
		return fmt.Errorf("get csinode %s: %w", node.Name, err)
	}
	return n.updateCSINode(ctx, node, current)
}

func (n *Node) createCSINode(ctx context.Context, node *corev1.Node) error {
	_, err := n.options.Client.StorageV1().CSINodes().Create(ctx, CSINodeOf(node, n.options.CSIDrivers), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create csinode %s: %w", node.Name, err)
	}
	return nil
}

// updateCSINode takes over what an earlier Node of the name has left, before the garbage collector takes it away.
func (n *Node) updateCSINode(ctx context.Context, node *corev1.Node, current *storagev1.CSINode) error {
	merged := current.DeepCopy()
	merged.Spec.Drivers = mergeDrivers(current.Spec.Drivers, n.options.CSIDrivers)
	merged.OwnerReferences = CSINodeOf(node, nil).OwnerReferences
	if equality.Semantic.DeepEqual(current, merged) {
		return nil
	}
	if _, err := n.options.Client.StorageV1().CSINodes().Update(ctx, merged, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update csinode %s: %w", current.Name, err)
	}
	return nil
}

// CSINodeOf makes the CSINode object of a registered Node. It is pure.
func CSINodeOf(node *corev1.Node, drivers []storagev1.CSINodeDriver) *storagev1.CSINode {
	return &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{
			Name: node.Name,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1",
				Kind:       "Node",
				Name:       node.Name,
				UID:        node.UID,
			}},
		},
		// The field is required: no driver must be an empty list.
		Spec: storagev1.CSINodeSpec{Drivers: append([]storagev1.CSINodeDriver{}, drivers...)},
	}
}

// mergeDrivers replaces drivers of the same name and appends the others.
func mergeDrivers(present, ours []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
	merged := slices.Clone(present)
	for _, driver := range ours {
		i := slices.IndexFunc(merged, func(d storagev1.CSINodeDriver) bool { return d.Name == driver.Name })
		if i < 0 {
			merged = append(merged, driver)
			continue
		}
		merged[i] = driver
	}
	return merged
}
