package admin

import (
	"context"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// Reserved is the directory, at the root of a file system's part that is administered, where records, snapshots and the trash
// lie. It belongs to user 0 and nobody else may look into it; no volume's path may begin with it.
const Reserved = ".sidemount"

// DefaultMode are the permissions of a new volume's directory: who may write is decided by who mounts it.
const DefaultMode = 0o777

// MaxDuration bounds a command that comes without a deadline.
const MaxDuration = time.Minute

// FileSystem is a file system with its credentials. Client, Config, Options and Secret count; the option "subdir" confines all
// that is done to that directory. ID and Name are not looked at.
type FileSystem = mount.Volume

// Service carries out commands. The errors of this package and mount.ErrConfig and mount.ErrUnavailable are told apart.
type Service interface {
	// CreateVolume makes a volume's directory, with its content if there is a Source, and its quota. The same ID with the same
	// attributes gives the same answer again. One that is not complete yet keeps the path of the first call, which the answer tells.
	// ErrExists: the ID is there with others, or something that is no volume is at the path. ErrNotFound: the source is not there.
	// ErrBusy: the source is still being copied.
	CreateVolume(ctx context.Context, c CreateVolume) (Volume, error)
	// DeleteVolume returns when the volume's name is gone; its content is removed later, by itself. A volume that is not there
	// is no error. With several volumes at one path the last one's deletion removes the directory. ErrInUse: another volume
	// lies within the directory.
	DeleteVolume(ctx context.Context, c DeleteVolume) error
	// Volume returns a volume as it is now. ErrNotFound: there is none.
	Volume(ctx context.Context, q VolumeQuery) (Volume, error)
	// ExpandVolume raises a volume's capacity. What is there already, or more, is left and answered. ErrNotFound: there is no
	// such volume.
	ExpandVolume(ctx context.Context, c ExpandVolume) (Volume, error)
	// CreateSnapshot copies a volume's metadata at this moment; data is shared. The answer may be not Ready while the copy runs; the
	// caller asks again. ErrExists: the ID is there and is of another volume. ErrNotFound: there is no such volume.
	CreateSnapshot(ctx context.Context, c CreateSnapshot) (Snapshot, error)
	// DeleteSnapshot works as DeleteVolume.
	DeleteSnapshot(ctx context.Context, c DeleteSnapshot) error
	// Snapshots returns those that match, sorted by ID. Nothing that matches is no error.
	Snapshots(ctx context.Context, q SnapshotsQuery) ([]Snapshot, error)
	// Capacity returns the file system's size. It never formats.
	Capacity(ctx context.Context, q CapacityQuery) (Capacity, error)
}

// CreateVolume asks for a volume.
type CreateVolume struct {
	FileSystem FileSystem `json:"fileSystem"`
	// ID names the volume; see CheckID.
	ID string `json:"id"`
	// Path is the volume's directory, below the file system's "subdir"; see CleanPath. Default: the ID. Several volumes may share
	// a path; its quota is then the largest capacity asked for, none if one of them has none.
	Path string `json:"path,omitempty"`
	// CapacityBytes becomes the directory's quota, exactly. 0: no quota.
	CapacityBytes int64 `json:"capacityBytes,omitempty"`
	// Mode are the directory's permissions (nine bits, and the sticky and set-group-id bits). 0: DefaultMode. With a Source, the
	// source's permissions are kept.
	Mode uint32 `json:"mode,omitempty"`
	// Source is what the volume begins with. nil: nothing.
	Source *Source `json:"source,omitempty"`
}

// Source is a snapshot or a volume of the same file system; one of the two is set.
type Source struct {
	SnapshotID string `json:"snapshotId,omitempty"`
	VolumeID   string `json:"volumeId,omitempty"`
}

// DeleteVolume asks for a volume's end.
type DeleteVolume struct {
	FileSystem FileSystem `json:"fileSystem"`
	ID         string     `json:"id"`
}

// VolumeQuery asks for one volume.
type VolumeQuery struct {
	FileSystem FileSystem `json:"fileSystem"`
	ID         string     `json:"id"`
}

// ExpandVolume asks for more room.
type ExpandVolume struct {
	FileSystem FileSystem `json:"fileSystem"`
	ID         string     `json:"id"`
	// CapacityBytes is the new capacity.
	CapacityBytes int64 `json:"capacityBytes"`
}

// CreateSnapshot asks for a snapshot of a volume.
type CreateSnapshot struct {
	FileSystem FileSystem `json:"fileSystem"`
	// ID names the snapshot; see CheckID.
	ID             string `json:"id"`
	SourceVolumeID string `json:"sourceVolumeId"`
}

// DeleteSnapshot asks for a snapshot's end.
type DeleteSnapshot struct {
	FileSystem FileSystem `json:"fileSystem"`
	ID         string     `json:"id"`
}

// SnapshotsQuery asks for the snapshots that match everything that is set.
type SnapshotsQuery struct {
	FileSystem     FileSystem `json:"fileSystem"`
	ID             string     `json:"id,omitempty"`
	SourceVolumeID string     `json:"sourceVolumeId,omitempty"`
}

// CapacityQuery asks for a file system's size.
type CapacityQuery struct {
	FileSystem FileSystem `json:"fileSystem"`
}

// Volume is a volume as it is.
type Volume struct {
	ID string `json:"id"`
	// Path is its directory, below the file system's "subdir", without a leading slash.
	Path string `json:"path"`
	// CapacityBytes is what the volume was last given; 0: no limit.
	CapacityBytes int64 `json:"capacityBytes,omitempty"`
	// UsedBytes is the space that its directory takes up, as the file system counts it for quotas; it may be some seconds old. Without a quota it is 0
	// when the file system does not keep count.
	UsedBytes int64 `json:"usedBytes,omitempty"`
	// UsedInodes is the number of files and directories, as UsedBytes.
	UsedInodes int64     `json:"usedInodes,omitempty"`
	Source     *Source   `json:"source,omitempty"`
	Created    time.Time `json:"created"`
}

// Snapshot is a snapshot as it is.
type Snapshot struct {
	ID             string `json:"id"`
	SourceVolumeID string `json:"sourceVolumeId"`
	// SizeBytes is the room that a volume needs which is made of it: the space that its content takes up. 0 until Ready.
	SizeBytes int64     `json:"sizeBytes,omitempty"`
	Created   time.Time `json:"created"`
	// Ready tells that volumes can be made of it.
	Ready bool `json:"ready"`
}

// Capacity is a file system's size. Without a limit of its own, a file system is as large as its client says (JuiceFS: 1 PiB).
type Capacity struct {
	TotalBytes      int64 `json:"totalBytes"`
	AvailableBytes  int64 `json:"availableBytes"`
	TotalInodes     int64 `json:"totalInodes,omitempty"`
	AvailableInodes int64 `json:"availableInodes,omitempty"`
}
