package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
)

// apply creates or updates the objects of a manifest.
func (c *Cluster) apply(ctx context.Context, manifest string) error {
	cmd := exec.CommandContext(ctx, c.state.bin("kubectl"), "apply", "--filename", manifest)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.state.Kubeconfig, "KUBECACHEDIR="+c.state.path("kubectl-cache"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w: %s", manifest, err, strings.TrimSpace(string(out)))
	}
	return nil
}

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
