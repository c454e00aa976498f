package machine

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/sidemount/sidemount/hack/cluster/internal/process"
	"golang.org/x/sys/unix"
)

// Options describe a machine.
type Options struct {
	// Hostname of the machine.
	Hostname string
	// Self is the program that runs Init when its first argument is InitCommand.
	Self string
	// Pause is the program that stays as pid 1.
	Pause string
	// Log receives what the first process writes.
	Log string
	// Files are bound over existing files: path to content. Sysctls that a kubelet insists on are given their values this
	// way, so that the host keeps its own and nothing has to be put back.
	Files map[string]string
	// Scratch is a directory for the sources of Files.
	Scratch string
}

// InitCommand is the hidden subcommand in which a new machine sets itself up.
const InitCommand = "machine-init"

// Start creates the namespaces and returns their first process, set up and ready for Do and Launch.
func Start(o Options) (process.Ref, error) {
	spec, err := json.Marshal(o)
	if err != nil {
		return process.Ref{}, err
	}
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return process.Ref{}, err
	}
	defer log.Close()
	ready, status, err := os.Pipe()
	if err != nil {
		return process.Ref{}, err
	}
	defer ready.Close()

	cmd := exec.Command(o.Self, InitCommand, string(spec))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{status}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	err = cmd.Start()
	status.Close()
	if err != nil {
		return process.Ref{}, fmt.Errorf("create namespaces: %w", err)
	}
	go cmd.Wait() // reaps it if it ends before this program does

	// Init closes its end by becoming pause, and writes into it only what went wrong.
	if msg, err := io.ReadAll(ready); err != nil || len(msg) > 0 {
		_ = cmd.Process.Kill()
		return process.Ref{}, fmt.Errorf("set up machine: %s", msg)
	}
	return process.Lookup(cmd.Process.Pid)
}
