package process

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

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
