package imagegc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/provider/cri"
)

// The kubelet's defaults.
const (
	defaultHigh     = 85
	defaultLow      = 80
	defaultMinAge   = 2 * time.Minute
	defaultInterval = 5 * time.Minute
)

// ErrNotEnough means that all images that may be removed are, and that the disk is still too full.
var ErrNotEnough = errors.New("too little disk space could be freed")

// Runtime is what a Collector needs of the container runtime.
type Runtime interface {
	// Images returns all images.
	Images(ctx context.Context) ([]cri.Image, error)
	// UsedImages returns ids and names of the images that containers are made from.
	UsedImages(ctx context.Context) (map[string]bool, error)
	// ImageFileSystems returns where images are kept.
	ImageFileSystems(ctx context.Context) (images, containers []cri.FileSystem, err error)
	// RemoveImage removes an image with all of its names.
	RemoveImage(ctx context.Context, id string) error
}

// Disk tells the size and the free space of the file system at path, in bytes.
type Disk func(path string) (capacity, available uint64, err error)

// Options of a Collector.
type Options struct {
	// Runtime is required.
	Runtime Runtime
	// HighPercent is how full the disk may be before images are removed, and LowPercent how full it may be after; by default 85
	// and 80. A HighPercent of 100 removes nothing.
	HighPercent int
	LowPercent  int
	// MinAge is how long an image is kept after it was first seen; by default 2 minutes. A pull precedes the container.
	MinAge time.Duration
	// Interval is the time between two looks; by default 5 minutes.
	Interval time.Duration
	// Disk is by default statfs(2).
	Disk Disk
	// Now is by default time.Now.
	Now func() time.Time
}

// Collector removes unused images. Its methods must not be called concurrently.
type Collector struct {
	opts Options
	// seen has when each image was first seen and last used. It begins empty: after a restart all images are equally old.
	seen map[string]*usage
}

type usage struct {
	first time.Time
	last  time.Time
}

// New returns a Collector.
func New(opts Options) (*Collector, error) {
	if opts.Runtime == nil {
		return nil, errors.New("a runtime is required")
	}
	opts.HighPercent = cmp.Or(opts.HighPercent, defaultHigh)
	opts.LowPercent = cmp.Or(opts.LowPercent, min(defaultLow, opts.HighPercent))
	if opts.LowPercent < 0 || opts.HighPercent > 100 || opts.LowPercent > opts.HighPercent {
		return nil, fmt.Errorf("from %d %% down to %d %% is no way to collect images", opts.HighPercent, opts.LowPercent)
	}
	opts.MinAge = cmp.Or(opts.MinAge, defaultMinAge)
	opts.Interval = cmp.Or(opts.Interval, defaultInterval)
	if opts.Disk == nil {
		opts.Disk = statfs
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Collector{opts: opts, seen: map[string]*usage{}}, nil
}

// Run collects until ctx ends; then it returns nil.
func (c *Collector) Run(ctx context.Context) error {
	ticker := time.NewTicker(c.opts.Interval)
	defer ticker.Stop()
	for {
		freed, err := c.Collect(ctx)
		if freed > 0 {
			log.G(ctx).WithField("bytes", freed).Info("unused images removed")
		}
		if err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("images not collected")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Collect looks once and returns how many bytes the images had that it removed. The error matches ErrNotEnough if that was not
// what it takes.
func (c *Collector) Collect(ctx context.Context) (freed uint64, err error) {
	unused, err := c.unused(ctx)
	if err != nil {
		return 0, err
	}
	want, err := c.excess(ctx)
	if err != nil || want == 0 {
		return 0, err
	}
	var errs []error
	for _, image := range unused {
		if freed >= want || ctx.Err() != nil {
			break
		}
		if err := c.opts.Runtime.RemoveImage(ctx, image.ID); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(c.seen, image.ID)
		freed += image.Size
	}
	if freed < want {
		errs = append(errs, fmt.Errorf("%w: %d of %d bytes", ErrNotEnough, freed, want))
	}
	return freed, errors.Join(errs...)
}

// unused updates what has been seen and returns the images that may be removed, the one used longest ago first.
func (c *Collector) unused(ctx context.Context) ([]cri.Image, error) {
	// Containers are listed after images, so that one which is made in between is among them.
	images, err := c.opts.Runtime.Images(ctx)
	if err != nil {
		return nil, err
	}
	used, err := c.opts.Runtime.UsedImages(ctx)
	if err != nil {
		return nil, err
	}
	now := c.opts.Now()
	seen := make(map[string]*usage, len(images))
	var unused []cri.Image
	for _, image := range images {
		u := c.seen[image.ID]
		if u == nil {
			u = &usage{first: now}
		}
		seen[image.ID] = u
		switch {
		case isUsed(image, used):
			u.last = now
		case !image.Pinned && now.Sub(u.first) >= c.opts.MinAge:
			unused = append(unused, image)
		}
	}
	c.seen = seen
	slices.SortStableFunc(unused, func(a, b cri.Image) int {
		ua, ub := seen[a.ID], seen[b.ID]
		return cmp.Or(ua.last.Compare(ub.last), ua.first.Compare(ub.first))
	})
	return unused, nil
}

func isUsed(image cri.Image, used map[string]bool) bool {
	return used[image.ID] || slices.ContainsFunc(image.RepoTags, func(s string) bool { return used[s] }) ||
		slices.ContainsFunc(image.RepoDigests, func(s string) bool { return used[s] })
}

// excess is how many bytes too many the fullest disk holds.
func (c *Collector) excess(ctx context.Context) (uint64, error) {
	disks, _, err := c.opts.Runtime.ImageFileSystems(ctx)
	if err != nil {
		return 0, err
	}
	var excess uint64
	for _, d := range disks {
		capacity, available, err := c.opts.Disk(d.Mountpoint)
		if err != nil {
			return 0, fmt.Errorf("free space of %s: %w", d.Mountpoint, err)
		}
		if capacity == 0 || c.opts.HighPercent == 100 {
			continue
		}
		taken := capacity - min(available, capacity)
		if taken*100/capacity >= uint64(c.opts.HighPercent) {
			excess = max(excess, taken-capacity/100*uint64(c.opts.LowPercent))
		}
	}
	return excess, nil
}

func statfs(path string) (capacity, available uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}
