package probe

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Result is the outcome of one attempt.
type Result string

const (
	// Success means that the container answered as it should.
	Success Result = "success"
	// Warning is a success with something to tell the user, for example an answer that redirects to another host.
	Warning Result = "warning"
	// Failure means that the container answered otherwise, or not in time.
	Failure Result = "failure"
)

// ErrHandler means that the probe names no handler, or one that cannot be understood.
var ErrHandler = errors.New("probe without a usable handler")

// Exec runs a command in a container. An exit code other than 0 is no error. A command that runs longer than timeout is reported
// by timedOut.
type Exec func(ctx context.Context, containerID string, command []string, timeout time.Duration) (output []byte, exitCode int32, timedOut bool, err error)

// Target is the container to be asked.
type Target struct {
	// ID is the runtime's.
	ID string
	// Container is its specification; its ports give names to numbers.
	Container *corev1.Container
	// Host is the pod's primary address.
	Host string
	// Command overrides the command of an exec handler, with its variables expanded; nil takes the handler's.
	Command []string
}

// Prober makes single attempts. It is safe for concurrent use.
type Prober struct {
	exec Exec
}

// New returns a Prober that runs commands by exec.
func New(exec Exec) *Prober { return &Prober{exec: exec} }

// Probe makes one attempt within the probe's timeout. The output is what a user may see. An error means that no attempt could be
// made; it says nothing about the container.
func (p *Prober) Probe(ctx context.Context, spec *corev1.Probe, t Target) (Result, string, error) {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	switch {
	case spec.Exec != nil:
		return p.command(ctx, spec.Exec.Command, t, timeout)
	case spec.HTTPGet != nil:
		return get(ctx, spec.HTTPGet, t, timeout)
	case spec.TCPSocket != nil:
		return connect(ctx, spec.TCPSocket, t, timeout)
	case spec.GRPC != nil:
		return health(ctx, spec.GRPC, t, timeout)
	}
	return Failure, "", ErrHandler
}

// Port resolves a port that may be the name of one of the container's.
func Port(port intstr.IntOrString, c *corev1.Container) (string, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return "", fmt.Errorf("%w: no port %q", ErrHandler, port.String())
	}
	return strconv.Itoa(n), nil
}
