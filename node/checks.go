package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Health is the container runtime as the node sees it.
type Health interface {
	// Health tells what keeps the runtime, and what keeps its network, from serving pods; nil means ready. It ends when ctx
	// ends.
	Health(ctx context.Context) (runtime, network error)
}

// Thresholds say when the node is under pressure. Zero values mean the kubelet's defaults for hard eviction
// (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/).
type Thresholds struct {
	// MemoryBytes is the least memory that must be available, in bytes. Default 100 MiB.
	MemoryBytes int64
	// DiskFraction is the least share of the disk that must be free, 0 to 1. Default 0.10.
	DiskFraction float64
	// InodesFraction is the least share of inodes that must be free, 0 to 1. Default 0.05.
	InodesFraction float64
	// Processes is the least number of process ids that must be free. Default 1000; the kubelet has no default.
	Processes int64
	// Hold is how long a pressure is reported after it was last seen, so that the scheduler does not send pods into a node
	// that swings around its threshold. Default 5 minutes.
	Hold time.Duration
}

func (t Thresholds) withDefaults() Thresholds {
	t.MemoryBytes = orDefault(t.MemoryBytes, 100<<20)
	t.DiskFraction = orDefault(t.DiskFraction, 0.10)
	t.InodesFraction = orDefault(t.InodesFraction, 0.05)
	t.Processes = orDefault(t.Processes, 1000)
	t.Hold = orDefault(t.Hold, 5*time.Minute)
	return t
}

// shortage is a pressure as it was last seen.
type shortage struct {
	text string
	seen time.Time
}

// checker runs the checks, one round at a time; it is not safe for concurrent use.
type checker struct {
	root       string
	dir        string
	health     Health
	timeout    time.Duration
	thresholds Thresholds
	held       map[string]shortage
}

// facts runs all checks. The runtime's answer is bounded by the timeout; the files are of the kernel and do not block,
// except a hung disk: then the round does not end, and Node.Ping reports it.
func (c *checker) facts(ctx context.Context, now time.Time) Facts {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	runtime, network := c.health.Health(bounded)
	if runtime != nil && errors.Is(bounded.Err(), context.DeadlineExceeded) {
		runtime = fmt.Errorf("container runtime is down: no answer in %s", c.timeout)
	}
	return Facts{
		Runtime:   runtime,
		Network:   network,
		Memory:    c.hold("memory", c.memory(), now),
		Disk:      c.hold("disk", c.disk(), now),
		Processes: c.hold("processes", c.processes(), now),
	}
}

func (c *checker) hold(key, text string, now time.Time) string {
	if text != "" {
		c.held[key] = shortage{text, now}
		return text
	}
	old, ok := c.held[key]
	if ok && now.Sub(old.seen) < c.thresholds.Hold {
		return old.text
	}
	delete(c.held, key)
	return ""
}

// memory answers an empty string when it cannot read: a node is not to be emptied because a file of /proc was odd.
func (c *checker) memory() string {
	m, err := readMemory(filepath.Join(c.root, "proc/meminfo"))
	if err != nil || m.Available >= c.thresholds.MemoryBytes {
		return ""
	}
	return fmt.Sprintf("less than %d MiB of memory available", c.thresholds.MemoryBytes>>20)
}

func (c *checker) disk() string {
	d, err := readDisk(c.dir)
	if err != nil {
		return "a disk that cannot be read: " + err.Error()
	}
	return diskShortage(d, c.thresholds)
}

func diskShortage(d disk, t Thresholds) string {
	switch {
	case d.Total > 0 && float64(d.Available) < t.DiskFraction*float64(d.Total):
		return fmt.Sprintf("less than %.0f%% of its disk free", t.DiskFraction*100)
	case d.Inodes > 0 && float64(d.InodesFree) < t.InodesFraction*float64(d.Inodes):
		return fmt.Sprintf("less than %.0f%% of its inodes free", t.InodesFraction*100)
	}
	return ""
}

// processes compares the number of scheduling entities (fourth field of /proc/loadavg, proc_loadavg(5)) with the lower of
// the kernel's two limits.
func (c *checker) processes() string {
	limit := min(c.number("proc/sys/kernel/pid_max"), c.number("proc/sys/kernel/threads-max"))
	fields := strings.Fields(readLine(filepath.Join(c.root, "proc/loadavg")))
	if limit == 0 || len(fields) < 4 {
		return ""
	}
	_, total, _ := strings.Cut(fields[3], "/")
	used, err := strconv.ParseInt(total, 10, 64)
	if err != nil || limit-used >= c.thresholds.Processes {
		return ""
	}
	return fmt.Sprintf("less than %d process ids free", c.thresholds.Processes)
}

func (c *checker) number(path string) int64 {
	n, err := strconv.ParseInt(readLine(filepath.Join(c.root, path)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
