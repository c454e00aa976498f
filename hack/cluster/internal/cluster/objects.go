package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
)

// defaultServiceAccount waits for what the API server refuses every pod without.
func (c *Cluster) defaultServiceAccount(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := wait.Until(ctx, 100*time.Millisecond, func(ctx context.Context) error {
		_, err := c.probe.get(ctx, c.state.Server+"/api/v1/namespaces/default/serviceaccounts/default")
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the default service account: %w", err)
	}
	return nil
}
