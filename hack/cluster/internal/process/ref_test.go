package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/wait"
	"golang.org/x/sys/unix"
)

func TestARecycledPidIsNotOurs(t *testing.T) {
	self, err := Lookup(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.Alive() {
		t.Error("this process passes for dead")
	}
	other := Ref{PID: self.PID, StartTime: self.StartTime - 1}
	if other.Alive() {
		t.Error("a process with another start time passes for the one that was recorded")
	}
	if err := other.Signal(unix.SIGKILL); !errors.Is(err, ErrGone) {
		t.Fatalf("signal to a recycled pid: %v; want ErrGone", err)
	}
}

func TestStopKillsWhatIgnoresTheSignal(t *testing.T) {
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do read x; done")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ref, err := Lookup(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := ref.Stop(t.Context(), unix.SIGTERM, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if ref.Alive() {
		t.Error("it still runs, or its zombie passes for running")
	}
}

// TestMain is also the program of TestAProcessLivesAsLongAsItsThreads: its first thread ends, the others wait for the end of
// standard input.
func TestMain(m *testing.M) {
	if os.Getenv("PROCESS_TEST_FIRST_THREAD_ENDS") == "" {
		os.Exit(m.Run())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	runtime.LockOSThread() // the first one, as no other goroutine could have had it
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func TestAProcessLivesAsLongAsItsThreads(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROCESS_TEST_FIRST_THREAD_ENDS=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	pid := cmd.Process.Pid
	err = wait.Until(t.Context(), 5*time.Millisecond, func(context.Context) error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || !strings.Contains(string(b), ") Z ") {
			return errors.New("the first thread still runs")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Lookup(pid)
	if err != nil {
		t.Fatalf("it passes for dead: %v", err)
	}
	stdin.Close()
	if err := ref.Wait(t.Context(), 10*time.Second); err != nil {
		t.Error(err)
	}
}
