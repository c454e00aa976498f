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

// exhaust has the kernel kill the client for want of memory. Another process joins the control group of the sidecar's container and takes
// what memory is left, so the limit is reached at once and not only when the client itself grows. It takes it as a file in memory, which
// counts for the group and for no process, so that the kernel looks for its victim among the others.
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
	before, err := oomKills(group)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	file, err := unix.MemfdCreate("ballast", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("take memory: %w", err)
	}
	piece := make([]byte, 64<<10)
	const most = 4 << 30
	for taken := 0; taken < most; {
		n, err := unix.Write(file, piece)
		if err != nil && !errors.Is(err, unix.ENOMEM) {
			return fmt.Errorf("take memory: %w", err)
		}
		taken += max(n, 0)
		// The victim needs a while to end. What it gives back must not be taken as well, or the kernel would choose somebody else.
		switch now, err := oomKills(group); {
		case err != nil:
			return err
		case now > before:
			return awaitEnd(process)
		}
	}
	return errors.New("the group has no limit")
}

// oomKills is how many processes of a group the kernel has killed for want of memory.
func oomKills(group string) (int, error) {
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		raw, err := os.ReadFile(filepath.Join(group, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				return strconv.Atoi(strings.TrimSpace(n))
			}
		}
	}
	return 0, fmt.Errorf("%s does not count its OOM kills", group)
}

// awaitEnd checks that the process that was killed is the one that was meant.
func awaitEnd(process int) error {
	const patience = 20_000 // milliseconds
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, patience)
	if err == nil && n == 0 {
		err = errors.New("the kernel has killed another process")
	}
	return err
}
