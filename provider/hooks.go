package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/probe"
)

// hookTimeout bounds a postStart hook, which the API gives no deadline. A hook that hangs would hold up the pod for ever.
const hookTimeout = 10 * time.Minute

// maxHookAnswer is how much of a hook's HTTP answer is read.
const maxHookAnswer = 10 << 10

// runHook runs a lifecycle hook in a running container until it ends or ctx does.
func runHook(ctx context.Context, r Containers, hook *corev1.LifecycleHandler, t probe.Target) error {
	switch {
	case hook.Exec != nil:
		return execHook(ctx, r, hook.Exec.Command, t)
	case hook.HTTPGet != nil:
		return httpHook(ctx, hook.HTTPGet, t)
	case hook.Sleep != nil:
		timer := time.NewTimer(time.Duration(hook.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	}
	return errors.New("hook without a usable handler")
}

func execHook(ctx context.Context, r Containers, command []string, t probe.Target) error {
	var timeout time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	_, exitCode, err := r.ExecSync(ctx, t.ID, command, timeout)
	if err != nil {
		return fmt.Errorf("run hook: %w", err)
	}
	if exitCode != 0 {
		return fmt.Errorf("hook exited with %d", exitCode)
	}
	return nil
}

// httpHook sends the request; an answer of 400 or above is a failure.
func httpHook(ctx context.Context, action *corev1.HTTPGetAction, t probe.Target) error {
	req, err := probe.NewRequest(ctx, action, t, "kube-lifecycle/1.36")
	if err != nil {
		return err
	}
	res, err := probe.Do(req, hookTimeout)
	if err != nil {
		return fmt.Errorf("send hook: %w", err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxHookAnswer)); err != nil {
		return fmt.Errorf("read hook's answer: %w", err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("hook answered %s", res.Status)
	}
	return nil
}
