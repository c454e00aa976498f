package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ballastCommand is the first argument of a process that uses up a control group's memory.
const ballastCommand = "ballast"

// exhaust has the kernel kill the client for want of memory. A process that the kernel must not choose joins the control group of the
// sidecar's container and takes what memory is left, so the limit is reached at once and not only when the client itself grows.
func exhaust(ctx context.Context, _ *trial, s *subject) error {
	victim, err := s.client()
	if err != nil {
		return err
	}
	group, err := memoryGroup(victim)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, self, ballastCommand, group, strconv.Itoa(victim)).CombinedOutput(); err != nil {
		return fmt.Errorf("exhaust the memory of %s: %w: %s", group, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// memoryGroup is the directory of a process's control group with the memory controller, in either hierarchy.
func memoryGroup(pid int) (string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	const root = "/sys/fs/cgroup"
	unified := ""
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) < 3:
		case parts[1] == "memory":
			return filepath.Join(root, "memory", parts[2]), nil
		case parts[1] == "":
			unified = parts[2]
		}
	}
	if unified == "" {
		return "", fmt.Errorf("process %d is in no control group for memory", pid)
	}
	return filepath.Join(root, unified), nil
}

// ballast joins the group and takes memory until the victim is dead.
func ballast(group, victim string) int {
	if err := sink(group, victim); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func sink(group, victim string) error {
	pid, err := strconv.Atoi(victim)
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	const never = "-1000"
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(never), 0); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	const step, most = 256 << 10, 4 << 30
	for taken := 0; taken < most; taken += step {
		b, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("take memory: %w", err)
		}
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		if ended(process) {
			return nil
		}
	}
	return errors.New("the group has no limit")
}

// ended tells whether a process has ended.
func ended(process int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}
