package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sidemount/sidemount/hack/cluster/internal/cgroup"
	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
)

// Exec runs a command inside the machine, or on a node of it, with stdin, stdout and stderr of this process, and returns
// its exit code; 128 + N when signal N ended it, as a shell does. The command finds the cluster's programs in its PATH.
func Exec(ctx context.Context, s *State, node string, argv []string) (int, error) {
	holder, ok := s.Holder(node)
	if !ok {
		return 0, fmt.Errorf("cluster %s has no node %q", s.Name, node)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	path := s.Bin + ":" + os.Getenv("PATH")
	if found, err := lookPath(argv[0], path); err == nil && !strings.Contains(argv[0], "/") {
		cmd.Path, cmd.Err = found, nil
	}
	cmd.Env = append(os.Environ(), "PATH="+path, "KUBECONFIG="+s.Kubeconfig)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := joinCgroup(s, node); err != nil {
		return 0, err
	}
	if err := machine.Do(holder, cmd.Start); err != nil {
		return 0, err
	}
	// The terminal sends its signals to the command as well; this process stays to pass on how it ended.
	signal.Ignore(syscall.SIGINT, syscall.SIGQUIT)
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// joinCgroup moves this process to where the command has to be from its first moment on.
func joinCgroup(s *State, node string) error {
	cgroups, err := cgroup.Detect()
	if err != nil {
		return err
	}
	name := s.Cgroup + "/control"
	if node != "" {
		name = s.Nodes[node].Cgroup + "/system"
	}
	return cgroups.Join(name, os.Getpid())
}

// lookPath finds a program in a PATH that is not this process's.
func lookPath(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := dir + "/" + name
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", exec.ErrNotFound
}
