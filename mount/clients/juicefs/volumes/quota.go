package volumes

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount"
)

// absolute is a path below our root as JuiceFS wants it for quotas. Its resolution follows no links.
func (s *Service) absolute(parts ...string) string {
	return path.Join(append([]string{"/", s.o.Subdir}, parts...)...)
}

// quota reads a directory's quota and usage; nil if it has none or is not there.
func (s *Service) quota(ctx meta.Context, dir string) (*meta.Quota, error) {
	found := make(map[string]*meta.Quota, 1)
	if err := s.m.HandleQuota(ctx, meta.QuotaGet, dir, found, false, false, false); err != nil {
		if strings.HasPrefix(err.Error(), "no quota for ") || missing(err) {
			return nil, nil
		}
		return nil, quotaFailed(ctx, "read quota", err)
	}
	return found[dir], nil
}

// errMoved means that the directory is not at its path any more: another worker has been there.
var errMoved = errors.New("the directory has been moved meanwhile")

// missing tells that HandleQuota has not found the directory.
func missing(err error) bool {
	return strings.HasPrefix(err.Error(), "resolve dir ") && strings.HasSuffix(err.Error(), syscall.ENOENT.Error())
}

// setQuota makes bytes a directory's limit and reads it back; 0 removes the quota. errMoved: it is not there. A limit on inodes that an administrator has set stays.
func (s *Service) setQuota(ctx meta.Context, dir string, bytes int64) error {
	if bytes == 0 {
		return s.dropQuota(ctx, dir)
	}
	for range 2 {
		want := map[string]*meta.Quota{dir: {MaxSpace: bytes, MaxInodes: -1}}
		if err := s.m.HandleQuota(ctx, meta.QuotaSet, dir, want, true, false, false); err != nil {
			return quotaFailed(ctx, "set quota", err)
		}
		q, err := s.quota(ctx, dir)
		if err != nil {
			return err
		}
		if q != nil && q.MaxSpace == bytes {
			return nil
		}
		// A worker that died between limit and usage leaves a quota that Redis cannot read back.
		if err := s.dropQuota(ctx, dir); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the metadata engine did not keep the quota of %s", mount.ErrUnavailable, dir)
}

// measure makes a quota's usage what the directory holds, file by file: the sums that JuiceFS keeps per directory lag behind by a
// second, and a copy takes them over as they are. It takes as long as there are files.
func (s *Service) measure(ctx meta.Context, dir string) error {
	found := make(map[string]*meta.Quota, 1)
	if err := s.m.HandleQuota(ctx, meta.QuotaCheck, dir, found, true, true, false); err != nil {
		return quotaFailed(ctx, "measure usage", err)
	}
	return nil
}

func (s *Service) dropQuota(ctx meta.Context, dir string) error {
	if err := s.m.HandleQuota(ctx, meta.QuotaDel, dir, nil, false, false, false); err != nil && !missing(err) {
		return quotaFailed(ctx, "remove quota", err)
	}
	return nil
}

// quotaFailed translates what JuiceFS says in words; they may come from a driver and are not shown.
func quotaFailed(ctx context.Context, action string, err error) error {
	if err := callerOf(ctx).Err(); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if missing(err) {
		return fmt.Errorf("%w: %s: %w", mount.ErrUnavailable, action, errMoved)
	}
	return fmt.Errorf("%w: metadata engine: %s; see the worker's log", mount.ErrUnavailable, action)
}

// limitOf is the quota of a directory that several volumes share: the largest capacity, none if one of them has none.
func limitOf(members []record) int64 {
	var limit int64
	for _, r := range members {
		if r.Capacity == 0 {
			return 0
		}
		limit = max(limit, r.Capacity)
	}
	return limit
}
