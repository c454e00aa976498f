package csi

import (
	"context"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// NodeUnpublishVolume implements the call of that name. It succeeds for whatever is at the target, dead or alive, or not there,
// and waits for no file system. What lies in the target's directory is never deleted.
func (n *Node) NodeUnpublishVolume(ctx context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	if err := checkVolumeID(r.GetVolumeId()); err != nil {
		return nil, err
	}
	t, err := n.pods.target(r.GetTargetPath())
	if err != nil {
		return nil, err
	}
	release, err := n.under.begin("target path " + t.real)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := n.pods.clear(t); err != nil {
		return nil, err
	}
	n.step(stepCleared)
	kept, err := n.pods.remove(t)
	if err != nil {
		return nil, err
	}
	if kept {
		n.log(t).Warn("directory of a target not removed: something was written into it while nothing was mounted there")
	}
	n.step(stepRemoved)
	n.seen.forget(t.real)
	// The reference goes last: what is left when this process dies before is done by the repeated call.
	if err := n.release(ctx, t); err != nil {
		return nil, err
	}
	return &spec.NodeUnpublishVolumeResponse{}, nil
}
