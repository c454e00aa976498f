package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Processes returns the pids, as this host counts them, of a pod's processes whose argument vector contains word. It finds them by the
// pod's cgroup, so it sees sidecars, which the API does not show.
func Processes(uid types.UID, word string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(cgroup), string(uid)) {
			continue
		}
		argv, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && strings.Contains(strings.ReplaceAll(string(argv), "\x00", " "), word) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Status returns the fields of /proc/PID/status.
func Status(pid int) (map[string]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			fields[k] = strings.TrimSpace(v)
		}
	}
	return fields, nil
}
