package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// userHertz is the unit of /proc/stat, ticks in a second: 100 on every architecture that Linux has (proc_stat(5)).
const userHertz = 100

// Usage measures what the whole machine uses. Its methods may be called concurrently.
type Usage struct {
	root, dir, name string
	started         time.Time

	// mu guards the last sample, from which the present rate is computed.
	mu   sync.Mutex
	last cpuSample
	rate uint64
}

type cpuSample struct {
	at   time.Time
	used uint64 // nanoseconds of all processors together
}

// NewUsage returns the measuring of the node of that name, whose pods' files lie below dir.
func NewUsage(name, dir string) *Usage {
	return &Usage{root: "/", dir: dir, name: name, started: time.Now()}
}

// Measure returns the node's part of a stats summary.
func (u *Usage) Measure() (statsv1alpha1.NodeStats, error) {
	now := time.Now()
	cpu, err := u.cpu(now)
	if err != nil {
		return statsv1alpha1.NodeStats{}, err
	}
	m, err := readMemory(filepath.Join(u.root, "proc/meminfo"))
	if err != nil {
		return statsv1alpha1.NodeStats{}, err
	}
	d, err := readDisk(u.dir)
	if err != nil {
		return statsv1alpha1.NodeStats{}, err
	}
	return statsv1alpha1.NodeStats{
		NodeName:  u.name,
		StartTime: metav1.NewTime(u.started),
		CPU:       cpu,
		Memory:    memoryStats(m, now),
		Fs:        fsStats(d, now),
	}, nil
}

func (u *Usage) cpu(now time.Time) (*statsv1alpha1.CPUStats, error) {
	used, err := readCPU(filepath.Join(u.root, "proc/stat"))
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	// A rate over less than a second would be noise; the last one is as good then.
	if elapsed := now.Sub(u.last.at); elapsed >= time.Second {
		if !u.last.at.IsZero() && used >= u.last.used {
			u.rate = uint64(float64(used-u.last.used) / elapsed.Seconds())
		}
		u.last = cpuSample{now, used}
	}
	rate := u.rate
	return &statsv1alpha1.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &used, UsageNanoCores: &rate}, nil
}

// readCPU adds up the busy columns of the first line: all but idle and iowait. Guest time is part of user time already.
func readCPU(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("read processor time: %s has no line of all processors", path)
	}
	var ticks uint64
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += n
	}
	return ticks * uint64(time.Second/userHertz), nil
}

func memoryStats(m memory, now time.Time) *statsv1alpha1.MemoryStats {
	used := uint64(max(m.Total-m.Available, 0))
	available := uint64(m.Available)
	return &statsv1alpha1.MemoryStats{
		Time: metav1.NewTime(now), AvailableBytes: &available, UsageBytes: &used, WorkingSetBytes: &used,
	}
}

func fsStats(d disk, now time.Time) *statsv1alpha1.FsStats {
	total, available := uint64(d.Total), uint64(d.Available)
	used := total - min(available, total)
	inodes, free := uint64(d.Inodes), uint64(d.InodesFree)
	usedInodes := inodes - min(free, inodes)
	return &statsv1alpha1.FsStats{
		Time: metav1.NewTime(now), AvailableBytes: &available, CapacityBytes: &total, UsedBytes: &used,
		Inodes: &inodes, InodesFree: &free, InodesUsed: &usedInodes,
	}
}
