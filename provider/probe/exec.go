package probe

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// maxOutput is how many bytes of an answer a user gets to see.
const maxOutput = 10 << 10

// command runs a command in the container; exit code 0 is success.
func (p *Prober) command(ctx context.Context, command []string, t Target, timeout time.Duration) (Result, string, error) {
	if t.Command != nil {
		command = t.Command
	}
	output, exitCode, timedOut, err := p.exec(ctx, t.ID, command, timeout)
	switch {
	case timedOut:
		return Failure, fmt.Sprintf("command timed out: %q timed out after %v", strings.Join(command, " "), timeout), nil
	case err != nil:
		return Failure, "", fmt.Errorf("run %q: %w", strings.Join(command, " "), err)
	case exitCode != 0:
		return Failure, text(output), nil
	}
	return Success, text(output), nil
}

func text(b []byte) string {
	if len(b) > maxOutput {
		b = b[:maxOutput]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
