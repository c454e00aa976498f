// Package process remembers processes across runs of the orchestrator and signals only those. It does not start any.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrGone means that the process has ended, or that its pid now belongs to another one.
var ErrGone = errors.New("process is gone")

// Ref names one process for good. A pid alone does not: the kernel gives it to another process later, and a signal
// meant for a kubelet would hit whatever that is. The pair with the start time is unique until the next boot.
type Ref struct {
	PID int `json:"pid"`
	// StartTime is in clock ticks since boot, field 22 of /proc/PID/stat.
	StartTime uint64 `json:"startTime"`
}

// Lookup makes the Ref of a running process. It returns ErrGone when there is none or when it is a zombie.
func Lookup(pid int) (Ref, error) {
	dead, start, err := stat(pid)
	if err != nil {
		return Ref{}, err
	}
	if dead {
		return Ref{}, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	return Ref{PID: pid, StartTime: start}, nil
}

// Alive tells whether exactly this process still runs. A zombie does not.
func (r Ref) Alive() bool {
	if r.PID <= 0 {
		return false
	}
	now, err := Lookup(r.PID)
	return err == nil && now == r
}

// Signal sends sig to exactly this process, through a pidfd, so that the pid cannot be recycled between check and kill.
func (r Ref) Signal(sig unix.Signal) error {
	fd, err := r.Open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrGone
		}
		return fmt.Errorf("signal pid %d: %w", r.PID, err)
	}
	return nil
}

// Open returns a pidfd of exactly this process, close-on-exec; the caller closes it.
func (r Ref) Open() (int, error) {
	if r.PID <= 0 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return -1, ErrGone
		}
		return -1, fmt.Errorf("open pidfd of %d: %w", r.PID, err)
	}
	if !r.Alive() {
		unix.Close(fd)
		return -1, fmt.Errorf("pid %d: %w", r.PID, ErrGone)
	}
	return fd, nil
}

// RSS returns the resident memory in bytes, 0 when the process is gone.
func (r Ref) RSS() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.PID))
	if err != nil || !r.Alive() {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// stat reads whether a process has ended, and its start time. The name in field 2 may hold spaces and parentheses: fields
// count from the last one. A process whose first thread is a zombie still has its files and ports while other threads end.
func stat(pid int) (dead bool, start uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false, 0, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 20 {
		return false, 0, fmt.Errorf("parse /proc/%d/stat: too few fields", pid)
	}
	state, threads := fields[0][0], string(fields[17])
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return state == 'X' || state == 'Z' && (threads == "0" || threads == "1"), start, err
}
