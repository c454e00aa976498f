package broker

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
)

// probe has a child process ask the mount for something. Whatever touches a FUSE mount may hang until somebody answers; a child can be left to its fate, a
// thread of this process cannot.
func (b *Broker) probe(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.ProbeTimeout)
	defer cancel()
	cmd := exec.Command(b.o.AgentPath, "probe", target)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the probe: %w", err)
	}
	ended := make(chan error, 1)
	// A request that a stopped client has taken cannot be killed. This goroutine then stays until the client is replaced or the connection aborted, and one of
	// them always happens.
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return describe(err)
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		return fmt.Errorf("no answer within %s: %w", b.o.ProbeTimeout, ctx.Err())
	}
}

// describe turns the probe's exit code, which is an error number, into that error.
func describe(err error) error {
	exit, ok := err.(*exec.ExitError)
	if !ok {
		return err
	}
	if code := exit.ExitCode(); code > 1 {
		return fmt.Errorf("look up a name: %w", syscall.Errno(code))
	}
	return fmt.Errorf("probe: %s", strconv.Quote(exit.String()))
}
