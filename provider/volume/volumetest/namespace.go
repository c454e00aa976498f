package volumetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// inside marks the process that runs in the private namespace.
const inside = "SIDEMOUNT_VOLUMETEST_NAMESPACE=private"

// Main runs the tests of a package in a private mount namespace if this process may make one, and returns the exit code. It
// is to be called by TestMain.
func Main(m *testing.M) int {
	if os.Getuid() != 0 || os.Getenv("SIDEMOUNT_VOLUMETEST_NAMESPACE") == "private" {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintf(os.Stderr, "run the tests in a private mount namespace: %v\n", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// NeedMounts skips the test unless it runs in a private mount namespace.
func NeedMounts(t testing.TB) {
	t.Helper()
	if os.Getenv("SIDEMOUNT_VOLUMETEST_NAMESPACE") != "private" {
		t.Skip("needs root, for mounts in a namespace of its own")
	}
}
