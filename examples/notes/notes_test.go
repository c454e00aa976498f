package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

const inside = "SIDEMOUNT_TEST_NAMESPACE"

// TestMain runs everything in a mount namespace of its own, so that no test can leave a mount on the machine.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestNotesOutliveTheirClient has the example served as in a sidecar, kills it, and goes on with what is open.
func TestNotesOutliveTheirClient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("skipped: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, target, agent := serve(ctx, t)

	f, err := os.OpenFile(filepath.Join(target, "note-03"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("before"); err != nil {
		t.Fatal(err)
	}
	killClient(t, agent)
	if _, err := f.WriteString(" and after"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	n, err := f.ReadAt(got, 0)
	if !errors.Is(err, io.EOF) || string(got[:n]) != "before and after" {
		t.Errorf("read %q, %v", got[:n], err)
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) != count {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if err := b.Wait(ctx, "notes"); err != nil {
		t.Error(err)
	}
}

// serve mounts the example. The broker is what runs on a node, the agent what runs in the sidecar.
func serve(ctx context.Context, t *testing.T) (*broker.Broker, string, *exec.Cmd) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	agent, notes := build(ctx, t, dir, "cmd/sidemount-agent"), build(ctx, t, dir, "examples/notes")
	log := logrus.New()
	log.SetOutput(t.Output())
	b, err := broker.New(broker.Options{RunDir: dir + "/run", StateDir: dir + "/state", AgentPath: agent, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	target := filepath.Join(dir, "mnt")
	if _, err := b.Open(ctx, broker.Request{
		ID: "notes", Target: target, Volume: mount.Volume{ID: "notes", Name: "notes", Client: mount.Passthrough},
	}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(agent, "run", "-socket", filepath.Join(b.SocketDir("notes"), "agent.sock"), "--", notes)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.WithoutCancel(ctx), "notes", 10*time.Second); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	if err := b.Wait(ctx, "notes"); err != nil {
		t.Fatal(err)
	}
	return b, target, cmd
}

func build(ctx context.Context, t *testing.T, dir, program string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.Base(program))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/sidemount/sidemount/"+program)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return path
}

// killClient kills the agent's only child. Whoever uses the mount waits for the next one.
func killClient(t *testing.T, agent *exec.Cmd) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", agent.Process.Pid)) // a child belongs to the thread that forked it
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the agent has no client")
}
