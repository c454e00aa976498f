package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
	"golang.org/x/sys/unix"
)

// RunDir holds what all clusters of a host share: locks, the list of clusters, the directories made for them.
const RunDir = "/run/sidemount-cluster"

// lockTimeout is longer than anything that is done under a lock.
const lockTimeout = 10 * time.Minute

// Lock takes an exclusive lock of the given name on this host. The kernel drops it with the process. Unlock by calling
// what is returned.
func Lock(ctx context.Context, name string) (func(), error) {
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(RunDir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err = wait.Until(ctx, 50*time.Millisecond, func(context.Context) error {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return wait.Permanent(err)
		}
		return err
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s (another run holds it): %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}
