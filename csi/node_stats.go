package csi

import (
	"context"
	"errors"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/mount"
)

// NodeGetVolumeStats implements the call of that name. A mount that does not answer in time is Unavailable: old figures would look like new
// ones.
func (n *Node) NodeGetVolumeStats(ctx context.Context, r *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	if err := checkVolumeID(r.GetVolumeId()); err != nil {
		return nil, err
	}
	if r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume path is empty")
	}
	t, b, err := n.published(r.GetVolumeId(), r.GetVolumePath())
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, notPublished(r.GetVolumeId(), r.GetVolumePath())
	}
	usage, err := n.usage(ctx, t, b)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w: %w", r.GetVolumeId(), mount.ErrUnavailable, err)
	}
	return &spec.NodeGetVolumeStatsResponse{Usage: usage.report()}, nil
}

// NodeGetVolumeHealth implements the call of that name. A volume may be unwell although nothing is mounted yet: its Mount Pod does not
// come up.
func (n *Node) NodeGetVolumeHealth(ctx context.Context, r *spec.NodeGetVolumeHealthRequest) (*spec.NodeGetVolumeHealthResponse, error) {
	if err := checkVolumeID(r.GetVolumeId()); err != nil {
		return nil, err
	}
	path := r.GetVolumePublishPath()
	if path == "" {
		any, err := n.place(mount.VolumeID(r.GetVolumeId()), "")
		if err != nil {
			return nil, err
		}
		if any == nil {
			return nil, status.Errorf(codes.NotFound, "volume %s is not published on this node", r.GetVolumeId())
		}
		if path, err = n.pods.asked(any.Point); err != nil {
			return nil, err
		}
	}
	t, b, err := n.published(r.GetVolumeId(), path)
	if err != nil {
		return nil, err
	}
	if b == nil && !n.held(t) {
		return nil, notPublished(r.GetVolumeId(), path)
	}
	health := &spec.VolumeHealth{VolumeId: r.GetVolumeId()}
	add := func(kind spec.VolumeHealthErrorType, reason, message string) {
		health.HealthStatuses = append(health.HealthStatuses, &spec.VolumeHealth_VolumeHealthEntry{Status: kind, Reason: reason, Message: message})
	}
	if abnormal, reason, message := n.condition(t); abnormal {
		add(spec.VolumeHealthErrorType_DEGRADED, reason, message)
	}
	if b != nil {
		if _, err := n.usage(ctx, t, b); err != nil {
			add(spec.VolumeHealthErrorType_INACCESSIBLE, reasonOf(err), err.Error())
		}
	}
	return &spec.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

func notPublished(volume, path string) error {
	return status.Errorf(codes.NotFound, "volume %s is not published at %q", volume, path)
}

// published returns what is mounted at a path for a volume, nil if nothing is. That it is another volume's is an error.
func (n *Node) published(volume, path string) (target, *bound, error) {
	t, err := n.pods.target(path)
	if err != nil {
		return t, nil, notPublished(volume, path)
	}
	b, err := n.mounted(t)
	if err != nil || b == nil {
		return t, nil, err
	}
	if b.session == "" {
		return t, nil, notPublished(volume, path)
	}
	if has, alive, err := n.alive(b); err != nil || alive && string(has) != volume {
		return t, nil, errors.Join(err, notPublished(volume, path))
	}
	return t, b, nil
}

// usage asks what is mounted at a target for its figures. All targets of a share are one mount, which is asked once.
func (n *Node) usage(ctx context.Context, t target, b *bound) (Usage, error) {
	if _, alive, err := n.alive(b); err != nil || !alive {
		return Usage{}, errors.Join(err, errLost)
	}
	return n.figures.of(ctx, b.Device, t.real)
}

var errLost = errors.New("the mount was lost; the kubelet has it made again within minutes, and containers must be started again to see it")

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errLost):
		return "SessionLost"
	case errors.Is(err, errSilent):
		return "NotAnswering"
	}
	return "Failing"
}

// report is the usage in the words of the CSI specification.
func (u Usage) report() []*spec.VolumeUsage {
	return []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: u.Bytes.Total, Available: u.Bytes.Available, Used: u.Bytes.Used},
		{Unit: spec.VolumeUsage_INODES, Total: u.Inodes.Total, Available: u.Inodes.Available, Used: u.Inodes.Used},
	}
}
