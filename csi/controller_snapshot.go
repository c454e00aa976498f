package csi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidemount/sidemount/mount/admin"
)

// CreateSnapshot implements the call of that name. While a large tree is copied the snapshot is not ready to use, and the
// same call asks again.
func (c *controller) CreateSnapshot(ctx context.Context, r *spec.CreateSnapshotRequest) (*spec.CreateSnapshotResponse, error) {
	id, err := identifier(r.GetName())
	if err != nil {
		return nil, err
	}
	source := r.GetSourceVolumeId()
	if source == "" {
		return nil, status.Error(codes.InvalidArgument, "source volume id is missing")
	}
	for key := range r.GetParameters() {
		if !strings.Contains(key, "/") {
			return nil, status.Errorf(codes.InvalidArgument, "VolumeSnapshotClass has the unknown parameter %q; remove it", key)
		}
	}
	if admin.CheckID(source) != nil {
		return nil, fmt.Errorf("volume %q: %w", source, admin.ErrNotFound)
	}
	fs, err := fileSystem(r.GetSecrets(), snapshotterSecret, "VolumeSnapshotClass")
	if err != nil {
		return nil, err
	}
	end, err := c.under.begin("snapshot " + id)
	if err != nil {
		return nil, err
	}
	defer end()
	snapshot, err := c.admin.CreateSnapshot(ctx, admin.CreateSnapshot{FileSystem: fs, ID: id, SourceVolumeID: source})
	if err != nil {
		return nil, curable(fmt.Errorf("snapshot of volume %s: %w", source, err))
	}
	return &spec.CreateSnapshotResponse{Snapshot: describeSnapshot(snapshot)}, nil
}

// DeleteSnapshot implements the call of that name.
func (c *controller) DeleteSnapshot(ctx context.Context, r *spec.DeleteSnapshotRequest) (*spec.DeleteSnapshotResponse, error) {
	id := r.GetSnapshotId()
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "snapshot id is missing")
	}
	if admin.CheckID(id) != nil {
		return &spec.DeleteSnapshotResponse{}, nil // no snapshot of ours can have it
	}
	fs, err := fileSystem(r.GetSecrets(), snapshotterSecret, "VolumeSnapshotClass")
	if err != nil {
		return nil, err
	}
	end, err := c.under.begin("snapshot " + id)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := c.admin.DeleteSnapshot(ctx, admin.DeleteSnapshot{FileSystem: fs, ID: id}); err != nil && !errors.Is(err, admin.ErrNotFound) {
		return nil, curable(fmt.Errorf("delete snapshot %s: %w", id, err))
	}
	return &spec.DeleteSnapshotResponse{}, nil
}

// ListSnapshots implements the call of that name, for the snapshots of the Secret's file system.
func (c *controller) ListSnapshots(ctx context.Context, r *spec.ListSnapshotsRequest) (*spec.ListSnapshotsResponse, error) {
	if r.GetMaxEntries() < 0 {
		return nil, status.Error(codes.InvalidArgument, "max entries is negative")
	}
	after, err := readToken(r.GetStartingToken())
	if err != nil {
		return nil, err
	}
	for _, id := range []string{r.GetSnapshotId(), r.GetSourceVolumeId()} {
		if id != "" && admin.CheckID(id) != nil {
			return &spec.ListSnapshotsResponse{}, nil
		}
	}
	fs, err := fileSystem(r.GetSecrets(), listSecret, "VolumeSnapshotClass")
	if err != nil {
		return nil, err
	}
	all, err := c.admin.Snapshots(ctx, admin.SnapshotsQuery{FileSystem: fs, ID: r.GetSnapshotId(), SourceVolumeID: r.GetSourceVolumeId()})
	if err != nil {
		return nil, curable(fmt.Errorf("list snapshots: %w", err))
	}
	return page(all, after, int(r.GetMaxEntries())), nil
}

// page returns the snapshots after an ID, in the order of their IDs. A page stays right when snapshots come and go between two
// calls, also if the one that it begins after has gone.
func page(all []admin.Snapshot, after string, most int) *spec.ListSnapshotsResponse {
	response := &spec.ListSnapshotsResponse{}
	for _, s := range all {
		if s.ID <= after {
			continue
		}
		if most > 0 && len(response.Entries) == most {
			response.NextToken = writeToken(response.Entries[most-1].Snapshot.SnapshotId)
			break
		}
		response.Entries = append(response.Entries, &spec.ListSnapshotsResponse_Entry{Snapshot: describeSnapshot(s)})
	}
	return response
}

func describeSnapshot(s admin.Snapshot) *spec.Snapshot {
	return &spec.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.SourceVolumeID, SizeBytes: s.SizeBytes, CreationTime: timestamppb.New(s.Created), ReadyToUse: s.Ready,
	}
}

// tokenPrefix tells our tokens from other text.
const tokenPrefix = "after:"

func writeToken(id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + id))
}

// readToken returns the ID that the next page begins after. An unknown token is ABORTED (CSI specification, "ListSnapshots
// Errors"): the caller begins again without one.
func readToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	id, ok := strings.CutPrefix(string(text), tokenPrefix)
	if err != nil || !ok || admin.CheckID(id) != nil {
		return "", status.Error(codes.Aborted, "starting token is none of this driver's; list from the beginning")
	}
	return id, nil
}
