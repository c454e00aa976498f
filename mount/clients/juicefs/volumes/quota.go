package volumes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"time"

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
//
// JuiceFS writes the limit and then the usage. On Redis a quota cannot be read between the two, for ever if a worker dies there: it must be
// removed then, and a living worker whose quota was taken for such a rest begins again.
func (s *Service) setQuota(ctx meta.Context, dir string, bytes int64) error {
	if bytes == 0 {
		return s.dropQuota(ctx, dir)
	}
	for try := range retries {
		want := map[string]*meta.Quota{dir: {MaxSpace: bytes, MaxInodes: -1}}
		err := s.m.HandleQuota(ctx, meta.QuotaSet, dir, want, true, false, false)
		if err != nil && !removedMeanwhile(err) {
			return quotaFailed(ctx, "set quota", err)
		}
		q, err := s.quota(ctx, dir)
		if err != nil {
			return err
		}
		if q != nil && q.MaxSpace == bytes {
			return nil
		}
		// Another worker is given time for its second step before its quota is taken for the rest of a dead one.
		if err := pause(callerOf(ctx), rand.N(time.Duration(try+1)*quotaPause)); err != nil {
			return err
		}
		if q == nil && try%2 == 1 {
			if err := s.dropQuota(ctx, dir); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: the metadata engine did not keep the quota of %s", mount.ErrUnavailable, dir)
}

// quotaPause is how much longer each further attempt may wait for other workers.
const quotaPause = 20 * time.Millisecond

// removedMeanwhile tells that a quota was removed between HandleQuota's two steps.
func removedMeanwhile(err error) bool {
	return strings.HasPrefix(err.Error(), "set quota usage for ") && strings.HasSuffix(err.Error(), "limitation not set or deleted")
}

// pause waits, at most as long as the caller does.
func pause(caller context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-caller.Done():
		return fmt.Errorf("set quota: %w", caller.Err())
	}
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
