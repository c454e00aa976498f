package csi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/mount/admin"
)

// maxNameBytes is the longest name of a volume or snapshot (CSI specification, "Size Limits").
const maxNameBytes = 128

// CreateVolume implements the call of that name. The volume's ID is the name that was asked for; with Kubernetes that is the
// name of the PersistentVolume.
func (c *controller) CreateVolume(ctx context.Context, r *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	id, err := identifier(r.GetName())
	if err != nil {
		return nil, err
	}
	if err := checkCreate(r); err != nil {
		return nil, err
	}
	wanted, err := readSize(r.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	end, err := c.under.begin("volume " + id)
	if err != nil {
		return nil, err
	}
	defer end()
	p, err := c.plan(ctx, id, r)
	if err != nil {
		return nil, err
	}
	p.command.CapacityBytes = wanted.capacity()
	volume, err := c.create(ctx, p, wanted)
	if err != nil {
		return nil, curable(err)
	}
	c.warn(ctx, id, r.GetParameters(), p.warnings)
	return &spec.CreateVolumeResponse{Volume: &spec.Volume{
		VolumeId:      volume.ID,
		CapacityBytes: volume.CapacityBytes,
		VolumeContext: p.volumeContext(volume.Path),
		ContentSource: r.GetVolumeContentSource(),
	}}, nil
}

// checkCreate looks at what does not depend on the StorageClass.
func checkCreate(r *spec.CreateVolumeRequest) error {
	if err := checkCapabilities(r.GetVolumeCapabilities()); err != nil {
		return err
	}
	if len(r.GetMutableParameters()) > 0 {
		return status.Error(codes.InvalidArgument, "a VolumeAttributesClass is not served: a volume has no attributes that can change; remove volumeAttributesClassName from the claim")
	}
	if neverWritten(r.GetVolumeCapabilities()) && r.GetVolumeContentSource() == nil && r.GetParameters()[pathPatternParameter] == "" {
		return status.Error(codes.InvalidArgument, "a new volume is empty, and ReadOnlyMany alone would leave it so; add an access mode that writes, a data source, or "+
			pathPatternParameter+" to name a directory with content")
	}
	return nil
}

// identifier turns a name of the orchestrator into an ID. Names of Kubernetes stay as they are; one that could not be the name
// of a file is replaced by its hash.
func identifier(name string) (string, error) {
	switch {
	case name == "":
		return "", status.Error(codes.InvalidArgument, "name is missing")
	case len(name) > maxNameBytes:
		return "", status.Errorf(codes.InvalidArgument, "name has %d bytes, more than %d", len(name), maxNameBytes)
	case strings.ContainsFunc(name, control):
		return "", status.Error(codes.InvalidArgument, "name has a control character")
	case admin.CheckID(name) == nil:
		return name, nil
	}
	sum := sha256.Sum256([]byte(name))
	return "id-" + hex.EncodeToString(sum[:]), nil
}

// create makes the volume, or finds it as an earlier call has made it.
func (c *controller) create(ctx context.Context, p plan, wanted size) (admin.Volume, error) {
	if err := c.sourceFits(ctx, p, wanted); err != nil {
		return admin.Volume{}, err
	}
	volume, err := c.admin.CreateVolume(ctx, p.command)
	if err == nil && volume.Path != p.command.Path {
		return p.accept(volume, wanted) // it had been begun at another path
	}
	if !errors.Is(err, admin.ErrExists) {
		return volume, err
	}
	existing, queryErr := c.admin.Volume(ctx, admin.VolumeQuery{FileSystem: p.command.FileSystem, ID: p.command.ID})
	switch {
	case errors.Is(queryErr, admin.ErrNotFound):
		return admin.Volume{}, err // something that is no volume is in the way
	case queryErr != nil:
		return admin.Volume{}, queryErr
	}
	if _, err := p.accept(existing, wanted); err != nil {
		return admin.Volume{}, err
	}
	// The record is right and the request has moved: labels of the claim have changed since, or the volume has grown. Asking
	// with the record's own values also waits for a copy that is not complete.
	p.command.Path, p.command.CapacityBytes = existing.Path, existing.CapacityBytes
	return c.admin.CreateVolume(ctx, p.command)
}

// sourceFits refuses a volume that is too small for its content. Whether the source exists is for the service to say: a volume
// that has been made of it already does not need it.
func (c *controller) sourceFits(ctx context.Context, p plan, wanted size) error {
	source, room := p.command.Source, wanted.capacity()
	if source == nil || room == 0 {
		return nil
	}
	content, err := c.contentSize(ctx, p.command.FileSystem, *source)
	if err != nil || content <= room {
		return err
	}
	if _, err := c.admin.Volume(ctx, admin.VolumeQuery{FileSystem: p.command.FileSystem, ID: p.command.ID}); !errors.Is(err, admin.ErrNotFound) {
		return err
	}
	return status.Errorf(codes.OutOfRange, "the source has %d bytes, more than the %d of the new volume", content, room)
}

// contentSize is 0 for a source that is not there.
func (c *controller) contentSize(ctx context.Context, fs admin.FileSystem, source admin.Source) (int64, error) {
	if source.VolumeID != "" {
		volume, err := c.admin.Volume(ctx, admin.VolumeQuery{FileSystem: fs, ID: source.VolumeID})
		if errors.Is(err, admin.ErrNotFound) {
			return 0, nil
		}
		return volume.UsedBytes, err
	}
	snapshots, err := c.admin.Snapshots(ctx, admin.SnapshotsQuery{FileSystem: fs, ID: source.SnapshotID})
	if err != nil || len(snapshots) == 0 {
		return 0, err
	}
	return snapshots[0].SizeBytes, nil
}

// DeleteVolume implements the call of that name. The request does not tell where the volume lies: the file system's records do. A
// Secret that does not exist any more is an error, not the end of the volume, so that nothing is left behind unseen.
func (c *controller) DeleteVolume(ctx context.Context, r *spec.DeleteVolumeRequest) (*spec.DeleteVolumeResponse, error) {
	id := r.GetVolumeId()
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "volume id is missing")
	}
	if admin.CheckID(id) != nil {
		return &spec.DeleteVolumeResponse{}, nil // no volume of ours can have it
	}
	fs, err := fileSystem(r.GetSecrets(), provisionerSecret, "StorageClass")
	if err != nil {
		return nil, err
	}
	end, err := c.under.begin("volume " + id)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := c.admin.DeleteVolume(ctx, admin.DeleteVolume{FileSystem: fs, ID: id}); err != nil && !errors.Is(err, admin.ErrNotFound) {
		return nil, curable(fmt.Errorf("delete volume %s: %w", id, err))
	}
	return &spec.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities implements the call of that name.
func (c *controller) ValidateVolumeCapabilities(ctx context.Context, r *spec.ValidateVolumeCapabilitiesRequest) (*spec.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume id is missing")
	}
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "volume capabilities are missing")
	}
	if _, err := c.volume(ctx, r.GetVolumeId(), r.GetSecrets(), provisionerSecret); err != nil {
		return nil, err
	}
	if err := checkCapabilities(r.GetVolumeCapabilities()); err != nil {
		return &spec.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
	}
	return &spec.ValidateVolumeCapabilitiesResponse{Confirmed: &spec.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters(),
	}}, nil
}

// found is a volume with the file system that it lies in.
type found struct {
	fs admin.FileSystem
	admin.Volume
}

// volume looks a volume up. parameter is where the Secret is named.
func (c *controller) volume(ctx context.Context, id string, secrets map[string]string, parameter string) (found, error) {
	if admin.CheckID(id) != nil {
		return found{}, fmt.Errorf("volume %q: %w", id, admin.ErrNotFound)
	}
	fs, err := fileSystem(secrets, parameter, "StorageClass")
	if err != nil {
		return found{}, err
	}
	volume, err := c.admin.Volume(ctx, admin.VolumeQuery{FileSystem: fs, ID: id})
	if err != nil {
		return found{}, curable(fmt.Errorf("volume %s: %w", id, err))
	}
	return found{fs: fs, Volume: volume}, nil
}
