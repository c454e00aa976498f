package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/sidecar/agent"
)

// The test binary plays every program of the real thing, so that each is a process of its own and can be killed: roleEnv says
// which. Without it, it starts itself again in a mount namespace that ends with it, and runs the tests there.
const (
	roleEnv    = "SIDEMOUNT_TEST_ROLE"
	roleTests  = "tests"
	roleAgent  = "agent"
	roleClient = "client"
	roleFormat = "format"
	socketEnv  = "SIDEMOUNT_TEST_SOCKET"
)

func TestMain(m *testing.M) {
	os.Exit(play(m))
}

func play(m *testing.M) int {
	if len(os.Args) == 3 && os.Args[1] == "probe" { // the broker starts its agent like this
		var errno syscall.Errno
		if errors.As(agent.Probe(os.Args[2]), &errno) {
			return int(errno)
		}
		return 0
	}
	switch os.Getenv(roleEnv) {
	case roleAgent:
		return playAgent()
	case roleClient:
		return run(nil)
	case roleFormat:
		return run(os.Args[1:])
	case roleTests:
		return m.Run()
	}
	if os.Geteuid() != 0 {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+roleTests)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// playAgent is sidemount-agent run: an agent that starts this binary as its client.
func playAgent() int {
	runtime.LockOSThread() // the thread that starts the client must be the one that gives up new privileges
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv(roleEnv, roleClient); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a, err := agent.New(agent.Options{Socket: os.Getenv(socketEnv), Argv: []string{exe}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestClient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("there is no /dev/fuse: ", err)
	}
	RegisterFailHandler(Fail)
	RunSpecs(t, "sidemount-juicefs")
}

// program is this binary at a place where every user may run it.
var program string

var _ = BeforeSuite(func() {
	dir, err := os.MkdirTemp("", "sidemount-juicefs-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chmod(dir, 0o755)).To(Succeed())
	program = filepath.Join(dir, "program")
	text, err := os.ReadFile("/proc/self/exe")
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(program, text, 0o755)).To(Succeed())
})
