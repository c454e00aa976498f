package csi

import (
	"context"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/sidecar"
)

// Steps of publish and unpublish, for tests.
const (
	stepAcquired = "acquired"
	stepMade     = "made"
	stepBound    = "bound"
	stepCleared  = "cleared"
	stepRemoved  = "removed"
)

// NodePublishVolume implements the call of that name. It is idempotent, and what it has begun when its process dies is taken up by
// the next call. The kubelet repeats it for running pods (requiresRepublish): it then replaces the bind of a lost session, and hands
// changed secrets on.
func (n *Node) NodePublishVolume(ctx context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	p, err := n.publication(r)
	if err != nil {
		return nil, err
	}
	release, err := n.under.begin("target path " + p.target.real)
	if err != nil {
		return nil, err
	}
	defer release()
	if p.alone {
		release, err := n.under.begin("volume " + string(p.volume))
		if err != nil {
			return nil, err
		}
		defer release()
	}
	ctx, cancel := n.deadline(ctx)
	defer cancel()
	if err := n.publish(ctx, p); err != nil {
		return nil, n.unfinished(ctx, p, err)
	}
	return &spec.NodePublishVolumeResponse{}, nil
}

// deadline ends the work before the caller gives up, so that the caller learns what it was waiting for.
func (n *Node) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(n.options.PublishTimeout)
	if asked, ok := ctx.Deadline(); ok {
		left := time.Until(asked)
		if own := time.Now().Add(left - min(left/4, 3*time.Second)); own.Before(end) {
			end = own
		}
	}
	return context.WithDeadline(ctx, end)
}

func (n *Node) publish(ctx context.Context, p publication) error {
	if p.hands() {
		return n.hand(ctx, p)
	}
	if n.seen.is(p.target.real, p.digest) {
		if whole, err := n.whole(p); whole || err != nil {
			return err
		}
	}
	if err := n.allowed(p); err != nil {
		return err
	}
	// What is wrong with the target is said before a Mount Pod starts.
	parent, err := n.pods.present(p.target)
	if err != nil {
		return err
	}
	if err := parent.Close(); err != nil {
		return err
	}
	source, err := n.source(ctx, p)
	if err != nil {
		return err
	}
	own, err := n.ownSidecar(ctx, p, func(m sidecar.Mount) bool { return kubeletName(m) == p.target.volume })
	if err != nil {
		return err
	}
	if own != nil {
		err = n.openSession(ctx, p, source, *own)
	} else {
		err = n.share(ctx, p, source)
	}
	if err != nil {
		return err
	}
	n.step(stepBound)
	n.seen.add(p.target.real, p.digest)
	return nil
}

// share has the target use the node's Mount Pod of its volume.
func (n *Node) share(ctx context.Context, p publication, source sidecar.Source) error {
	described, err := n.options.Volumes.Describe(source)
	if err != nil {
		if !p.known {
			return status.Errorf(codes.InvalidArgument, "%v; the CSIDriver object has no podInfoOnMount: true, without which every volume counts as the pod's own", err)
		}
		return err
	}
	n.warn(p, described.Warnings)
	share, err := n.options.Keeper.Acquire(ctx, mountpod.Request{Mount: described, Target: p.target.real, Pod: p.pod, PodUID: p.podUID})
	if err != nil {
		return err
	}
	n.step(stepAcquired)
	return n.bind(p, share)
}

// unfinished gives up what a failed publish has acquired if the kubelet will not come back for it. After the codes for which
// it does come back, it either repeats the call or unpublishes (k8s.io/kubernetes/pkg/volume/csi, isFinalError).
func (n *Node) unfinished(ctx context.Context, p publication, err error) error {
	err = translate(err)
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return err
	}
	on, look := n.mounted(p.target)
	if look != nil || on != nil {
		return err // an earlier publish has succeeded, and its target is in use
	}
	n.seen.failed(p.target.real)
	if release := n.release(context.WithoutCancel(ctx), p.target); release != nil {
		n.log(p.target).WithError(release).Error("share of a failed publish not released")
	}
	return err
}

// warn tells the pod's user which settings are not followed.
func (n *Node) warn(p publication, warnings []string) {
	if p.pod.Name == "" {
		return
	}
	for _, w := range n.seen.news(p.target.real, warnings) {
		n.options.Recorder.Event(p.podReference(), corev1.EventTypeWarning, "VolumeSettingIgnored", w)
	}
}
