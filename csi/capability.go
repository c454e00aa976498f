package csi

import (
	"fmt"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// accessModes are those that a volume can have: the file systems behind are made for many readers and writers.
// MULTI_NODE_SINGLE_WRITER is left out, because nobody would see to it that there is one writer only.
var accessModes = []spec.VolumeCapability_AccessMode_Mode{
	spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

// checkCapabilities refuses what no volume can have, and a request that says nothing.
func checkCapabilities(all []*spec.VolumeCapability) error {
	if len(all) == 0 {
		return status.Error(codes.InvalidArgument, "volume capabilities are missing")
	}
	for _, c := range all {
		if err := checkCapability(c); err != nil {
			return err
		}
	}
	return nil
}

func checkCapability(c *spec.VolumeCapability) error {
	mode := c.GetAccessMode().GetMode()
	switch {
	case c.GetBlock() != nil:
		return status.Error(codes.InvalidArgument, "a volume is a file system and cannot be a raw block device; use volumeMode: Filesystem")
	case c.GetMount() == nil:
		return status.Error(codes.InvalidArgument, "a volume capability has no access type")
	case !slices.Contains(accessModes, mode):
		return status.Errorf(codes.InvalidArgument, "access mode %s is not served; use ReadWriteOnce, ReadWriteOncePod, ReadOnlyMany or ReadWriteMany", mode)
	}
	return nil
}

// readOnlyMode is true for a mode in which nobody can write.
func readOnlyMode(mode spec.VolumeCapability_AccessMode_Mode) bool {
	return mode == spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY || mode == spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
}

// neverWritten is true when no capability lets anybody write.
func neverWritten(all []*spec.VolumeCapability) bool {
	return !slices.ContainsFunc(all, func(c *spec.VolumeCapability) bool { return !readOnlyMode(c.GetAccessMode().GetMode()) })
}

// mountFlags returns the mount options of all capabilities; the same ones come with each access mode of a claim.
func mountFlags(all []*spec.VolumeCapability) []string {
	var flags []string
	for _, c := range all {
		for _, flag := range c.GetMount().GetMountFlags() {
			if !slices.Contains(flags, flag) {
				flags = append(flags, flag)
			}
		}
	}
	return flags
}

// size is how large a volume may be, in bytes. 0 means that there is no such bound.
type size struct{ required, limit int64 }

func readSize(r *spec.CapacityRange) (size, error) {
	s := size{required: r.GetRequiredBytes(), limit: r.GetLimitBytes()}
	switch {
	case s.required < 0 || s.limit < 0:
		return s, status.Error(codes.InvalidArgument, "a size is negative")
	case s.limit > 0 && s.required > s.limit:
		return s, status.Errorf(codes.OutOfRange, "%d bytes are required, and %d are the limit", s.required, s.limit)
	}
	return s, nil
}

// capacity is what a new volume gets: what is required, to the byte, or else all that is allowed.
func (s size) capacity() int64 {
	if s.required > 0 {
		return s.required
	}
	return s.limit
}

// fits tells whether an existing volume is as large as asked for. One without a quota (0) is as large as anybody wants.
func (s size) fits(capacity int64) bool {
	if capacity == 0 {
		return s.limit == 0
	}
	return capacity >= s.required && (s.limit == 0 || capacity <= s.limit)
}

// String is for errors.
func (s size) String() string {
	if s.limit == 0 {
		return fmt.Sprintf("at least %d bytes", s.required)
	}
	return fmt.Sprintf("%d to %d bytes", s.required, s.limit)
}
