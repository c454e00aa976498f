package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"

	"github.com/sidemount/sidemount/provider/cri"
)

const (
	// DefaultRoot is where a kubelet keeps the logs of pods, and DefaultLinks where collectors look for them.
	DefaultRoot  = "/var/log/pods"
	DefaultLinks = "/var/log/containers"
	// The kubelet's defaults.
	defaultMaxSize  = 10 << 20
	defaultMaxFiles = 5
	defaultInterval = 10 * time.Second
)

// Runtime is what a Keeper needs of the container runtime.
type Runtime interface {
	// Pods lists the pods of the node with their containers' names, ids, attempts and states.
	Pods(ctx context.Context) ([]cri.Pod, error)
	// ReopenLog makes the runtime open a container's log file anew.
	ReopenLog(ctx context.Context, containerID string) error
}

// KeeperOptions of a Keeper.
type KeeperOptions struct {
	// Runtime is required.
	Runtime Runtime
	// Root is the directory of the pods' logs; by default DefaultRoot.
	Root string
	// Links is the directory of links for collectors; "" makes none.
	Links string
	// MaxSize is how large a log may grow, in bytes, before it is rotated; by default 10 MiB. Between two looks it may grow further.
	MaxSize int64
	// MaxFiles is how many files a log may have, the current one included; by default 5, at least 2.
	MaxFiles int
	// Interval is the time between two looks; by default 10 seconds.
	Interval time.Duration
}

// Keeper rotates the logs of running containers and links them for collectors.
type Keeper struct {
	opts KeeperOptions
}

// NewKeeper returns a Keeper.
func NewKeeper(opts KeeperOptions) (*Keeper, error) {
	if opts.Runtime == nil {
		return nil, errors.New("a runtime is required")
	}
	if opts.Root == "" {
		opts.Root = DefaultRoot
	}
	opts.Root = filepath.Clean(opts.Root)
	if opts.MaxSize == 0 {
		opts.MaxSize = defaultMaxSize
	}
	if opts.MaxFiles == 0 {
		opts.MaxFiles = defaultMaxFiles
	}
	if opts.MaxSize < 0 || opts.MaxFiles < 2 {
		return nil, fmt.Errorf("logs of %d bytes in %d files cannot be rotated", opts.MaxSize, opts.MaxFiles)
	}
	if opts.Interval <= 0 {
		opts.Interval = defaultInterval
	}
	return &Keeper{opts: opts}, nil
}

// Run keeps the logs until ctx ends; then it returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	if k.opts.Links != "" {
		if err := os.MkdirAll(k.opts.Links, 0o755); err != nil {
			return fmt.Errorf("create the directory of log links: %w", err)
		}
	}
	ticker := time.NewTicker(k.opts.Interval)
	defer ticker.Stop()
	for {
		if err := k.Keep(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("container logs not fully kept")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Keep looks at all logs once. One that cannot be rotated does not keep it from the others.
func (k *Keeper) Keep(ctx context.Context) error {
	pods, err := k.opts.Runtime.Pods(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pods {
		for _, c := range p.Containers {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if c.State == cri.Running {
				errs = append(errs, k.keep(ctx, Path(k.opts.Root, p, c), c.ID))
			}
		}
	}
	if k.opts.Links != "" {
		errs = append(errs, link(k.opts.Links, k.opts.Root, pods))
	}
	return errors.Join(errs...)
}

func (k *Keeper) keep(ctx context.Context, path, id string) error {
	reopen := func(ctx context.Context) error {
		return k.opts.Runtime.ReopenLog(ctx, id)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A rotation was interrupted, or somebody removed the file: the runtime writes to one without a name.
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return nil
		}
		return ignoreGone(reopen(ctx))
	}
	if err != nil {
		return err
	}
	if info.Size() < k.opts.MaxSize {
		return nil
	}
	return ignoreGone(rotate(ctx, path, k.opts.MaxFiles, time.Now(), reopen))
}

// ignoreGone: a container may end or be removed at any moment.
func ignoreGone(err error) error {
	if errors.Is(err, cri.ErrNotFound) {
		return nil
	}
	return err
}

// Path is the log file of a container below root.
func Path(root string, p cri.Pod, c cri.Container) string {
	return filepath.Join(root, fmt.Sprintf("%s_%s_%s", p.Namespace, p.Name, p.UID), c.Name, strconv.FormatUint(uint64(c.Attempt), 10)+".log")
}
