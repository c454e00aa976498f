package broker_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/fuse"
)

// inside marks the process that runs in a mount namespace of its own, so that no test can leave a mount on the machine.
const inside = "SIDEMOUNT_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == deafName || name == stuckName {
		runClient(name == stuckName)
	}
	if dir := os.Getenv(loadDir); dir != "" {
		runLoad(dir)
		return
	}
	if path := os.Getenv(stepPath); path != "" {
		runSteps(path)
		return
	}
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		os.Exit(1)
	}
	ended := make(chan struct{})
	go free(cmd.Process.Pid, ended)
	err := cmd.Wait()
	close(ended)
	if exit, ok := err.(*exec.ExitError); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		os.Exit(1)
	}
}

// free lets a test process end that was killed while it used a mount of its own: it holds the connection open that its own threads wait for. Its sessions are
// aborted from here when it is a zombie whose threads have not ended.
func free(pid int, ended <-chan struct{}) {
	for zombie := 0; ; {
		select {
		case <-ended:
			return
		case <-time.After(time.Second):
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if !strings.Contains(string(status), "State:\tZ") {
			continue
		}
		if zombie++; zombie < 3 {
			continue
		}
		tables, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/mountinfo", pid))
		control, err := fuse.OpenControl()
		if err != nil {
			return
		}
		for _, table := range tables {
			for _, device := range sessions(table) {
				control.Abort(device)
			}
		}
		control.Close()
	}
}

// sessions lists the connections in a mount table that are sessions.
func sessions(table string) []uint32 {
	b, _ := os.ReadFile(table)
	var devices []uint32
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if !strings.Contains(line, " sidemount:") || len(f) < 3 {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		if n, err := strconv.ParseUint(minor, 10, 32); err == nil {
			devices = append(devices, uint32(n))
		}
	}
	return devices
}

// why says why sessions cannot be tested here, "" if they can.
func why() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return err.Error()
	}
	return ""
}

func TestSessions(t *testing.T) {
	if reason := why(); reason != "" {
		t.Skip("skipped: sessions need root and /dev/fuse: ", reason)
	}
	RegisterFailHandler(Fail)
	RunSpecs(t, "Sessions")
}

// program is the agent's, built once.
var program string

var _ = BeforeSuite(func() {
	Expect(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")).To(Succeed())
	dir, err := os.MkdirTemp("", "sidemount-broker-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chmod(dir, 0o755)).To(Succeed())
	program = filepath.Join(dir, "sidemount-agent")
	build := exec.Command("go", "build", "-o", program, "github.com/sidemount/sidemount/cmd/sidemount-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
})
