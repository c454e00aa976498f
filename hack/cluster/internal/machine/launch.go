package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/cgroup"
	"github.com/sidemount/sidemount/hack/cluster/internal/process"
)

// DetachCommand is the hidden subcommand that Launch runs inside the namespaces.
const DetachCommand = "machine-detach"

// Spec describes a process to launch.
type Spec struct {
	// Argv starts with the absolute path of the program.
	Argv []string
	Env  []string
	// Dir is the working directory, "/" when empty.
	Dir string
	// Log receives stdout and stderr, appended.
	Log string
	// Node, when set, makes the process the holder of a new node: it gets namespaces of its own first.
	Node *NodeSetup `json:",omitempty"`
}

// Launcher starts processes in a machine or node.
type Launcher struct {
	// Self is the program that runs Detach when its first argument is DetachCommand.
	Self string
	// Holder is the process whose namespaces the new ones enter.
	Holder process.Ref
	// Cgroups and Cgroup say where the new processes are accounted. It is joined before they start.
	Cgroups cgroup.Set
	Cgroup  string
}

// Launch starts a process that outlives the caller, as a child of the machine's pid 1.
//
// Between the two runs Detach, inside the namespaces: the kernel gives the orphans of a process to the reaper of the pid
// namespace that the parent is in, and the parent must therefore be inside. A zombie of the machine whose parent were
// outside would keep the machine from ending.
func (l Launcher) Launch(ctx context.Context, s Spec) (process.Ref, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return process.Ref{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, l.Self, DetachCommand)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return process.Ref{}, err
	}
	if err := Do(l.Holder, cmd.Start); err != nil {
		return process.Ref{}, fmt.Errorf("launch %s: %w", s.Argv[0], err)
	}
	// It waits for its orders, so that nothing is started before it is in the right cgroup.
	joinErr := l.Cgroups.Join(l.Cgroup, cmd.Process.Pid)
	if joinErr == nil {
		_, joinErr = io.Copy(stdin, bytes.NewReader(spec))
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil && joinErr == nil {
		return process.Ref{}, fmt.Errorf("launch %s: %w: %s", s.Argv[0], err, strings.TrimSpace(stderr.String()))
	}
	if joinErr != nil {
		return process.Ref{}, fmt.Errorf("launch %s: %w", s.Argv[0], joinErr)
	}
	return l.find(strings.TrimSpace(stdout.String()))
}

// find translates the pid that Detach has printed.
func (l Launcher) find(printed string) (process.Ref, error) {
	inner, err := strconv.Atoi(printed)
	if err != nil {
		return process.Ref{}, fmt.Errorf("read pid of the new process: %w", err)
	}
	ns, err := process.PIDNamespace(l.Holder.PID)
	if err != nil {
		return process.Ref{}, err
	}
	return process.FindInner(ns, inner)
}
