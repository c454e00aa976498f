// Package wait waits for states that nothing announces: a health endpoint, a process that ends, a cgroup that empties.
// It does not replace a channel or a watch where there is one.
package wait

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Until calls probe at once and then every interval until it returns nil. When ctx ends first, the error says so and
// wraps what probe said last. Errors that no further try can mend are marked with Permanent and end the wait.
func Until(ctx context.Context, interval time.Duration, probe func(context.Context) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		var p permanent
		if errors.As(err, &p) {
			return p.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last seen: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// Permanent marks an error of a probe as final.
func Permanent(err error) error { return permanent{err} }

type permanent struct{ error }
