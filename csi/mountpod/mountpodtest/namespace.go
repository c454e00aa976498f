package mountpodtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// inside marks the process that runs in the private namespace.
	inside = "SIDEMOUNT_MOUNTPODTEST"
	// program names the agent's executable for that process.
	program = "SIDEMOUNT_MOUNTPODTEST_AGENT"
)

// Main runs the tests of a package in a mount namespace of their own if this process may make one, and returns the exit code. It builds the agent
// for them. It is to be called by TestMain.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fail("make mounts private", err)
		}
		return m.Run()
	}
	if missing() != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sidemount-agent-")
	if err != nil {
		return fail("make a directory for the agent", err)
	}
	defer os.RemoveAll(dir)
	agent := filepath.Join(dir, "sidemount-agent")
	if err := build(agent); err != nil {
		return fail("build the agent", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fail("open the agent's directory", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1", program+"="+agent)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fail("run the tests in a mount namespace", err)
	}
	return cmd.ProcessState.ExitCode()
}

func build(agent string) error {
	cmd := exec.Command("go", "build", "-o", agent, "github.com/sidemount/sidemount/cmd/sidemount-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func fail(what string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	return 1
}

// missing says why sessions cannot be tested here, "" if they can.
func missing() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return err.Error()
	}
	return ""
}

// Agent is the agent's program.
func Agent() string { return os.Getenv(program) }

// NeedSessions skips the test, and says why, unless Main could make a place for it.
func NeedSessions(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("skipped: sessions need root and /dev/fuse, and TestMain must call Main: ", missing())
	}
}
