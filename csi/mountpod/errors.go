package mountpod

import (
	"errors"
	"fmt"

	"github.com/sidemount/sidemount/mount"
)

// Errors that callers tell apart. A client's own failure wraps mount.ErrConfig or mount.ErrUnavailable where the client said so.
var (
	// ErrOptions: a required option is missing.
	ErrOptions = errors.New("incomplete options")
	// ErrEnded: the keeper has ended.
	ErrEnded = fmt.Errorf("the keeper of mount pods has ended: %w", mount.ErrUnavailable)
	// ErrUpgrade: the share goes on with the Mount Pod that it had.
	ErrUpgrade = errors.New("mount pod not upgraded")
	// ErrSecretUnknown: a lost session cannot be opened anew before somebody acquires it again, since only an Acquire brings the Secret.
	ErrSecretUnknown = errors.New("the volume's secret is not known since the restart")
)

// podError is what a Mount Pod lacks, in words. Retrying may help.
type podError struct{ text string }

func (e *podError) Error() string { return e.text }
func (e *podError) Unwrap() error { return mount.ErrUnavailable }
