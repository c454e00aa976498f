package csi

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/mount/admin"
)

// ControllerExpandVolume implements the call of that name. The quota is raised where it is kept; nodes have nothing to do.
func (c *controller) ControllerExpandVolume(ctx context.Context, r *spec.ControllerExpandVolumeRequest) (*spec.ControllerExpandVolumeResponse, error) {
	wanted, err := checkExpand(r)
	if err != nil {
		return nil, err
	}
	id := r.GetVolumeId()
	end, err := c.under.begin("volume " + id)
	if err != nil {
		return nil, err
	}
	defer end()
	now, err := c.volume(ctx, id, r.GetSecrets(), expandSecret)
	if err != nil {
		return nil, err
	}
	if wanted.limit > 0 && now.CapacityBytes > wanted.limit {
		return nil, status.Errorf(codes.OutOfRange, "volume %s has %d bytes and cannot shrink to %d", id, now.CapacityBytes, wanted.limit)
	}
	if now.CapacityBytes == 0 || now.CapacityBytes >= wanted.capacity() {
		return expanded(now.Volume, wanted), nil
	}
	volume, err := c.admin.ExpandVolume(ctx, admin.ExpandVolume{FileSystem: now.fs, ID: id, CapacityBytes: wanted.capacity()})
	if err != nil {
		return nil, curable(fmt.Errorf("expand volume %s: %w", id, err))
	}
	return expanded(volume, wanted), nil
}

func checkExpand(r *spec.ControllerExpandVolumeRequest) (size, error) {
	if r.GetVolumeId() == "" {
		return size{}, status.Error(codes.InvalidArgument, "volume id is missing")
	}
	if c := r.GetVolumeCapability(); c != nil {
		if err := checkCapability(c); err != nil {
			return size{}, err
		}
	}
	wanted, err := readSize(r.GetCapacityRange())
	if err != nil {
		return size{}, err
	}
	if wanted.capacity() == 0 {
		return size{}, status.Error(codes.InvalidArgument, "capacity range is missing")
	}
	return wanted, nil
}

// expanded is the answer. The capacity must not be 0 there: a volume without a quota is as large as asked for.
func expanded(v admin.Volume, wanted size) *spec.ControllerExpandVolumeResponse {
	capacity := v.CapacityBytes
	if capacity == 0 {
		capacity = wanted.capacity()
	}
	return &spec.ControllerExpandVolumeResponse{CapacityBytes: capacity}
}
