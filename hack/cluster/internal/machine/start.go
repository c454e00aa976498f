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

// Start creates the namespaces and returns their first process, set up and ready for Do and Launch. It calls record with
// the process before that does anything, so that a caller that dies at any moment leaves no machine behind that no state
// file knows: the process ends by itself when it gets no answer.
func Start(o Options, record func(process.Ref) error) (process.Ref, error) {
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

	cmd := exec.Command(o.Self, InitCommand)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{status}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	orders, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	status.Close()
	if err != nil {
		return process.Ref{}, fmt.Errorf("create namespaces: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reaps it if it ends before this program does

	ref, err := process.Lookup(cmd.Process.Pid)
	if err == nil {
		err = record(ref)
	}
	if err == nil {
		_, err = orders.Write(spec)
	}
	orders.Close()
	if err != nil {
		return process.Ref{}, err
	}
	// Init closes its end by becoming pause, and writes into it only what went wrong.
	if msg, err := io.ReadAll(ready); err != nil || len(msg) > 0 {
		return process.Ref{}, fmt.Errorf("set up machine: %s", msg)
	}
	return ref, nil
}
