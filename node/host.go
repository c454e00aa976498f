package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what a Node object reports about the machine.
type Host struct {
	CPUs         int64
	MemoryBytes  int64
	StorageBytes int64
	// HugePages maps a page size in bytes to the bytes reserved for pages of that size.
	HugePages     map[int64]int64
	KernelVersion string
	OSImage       string
	MachineID     string
	SystemUUID    string
	BootID        string
	Architecture  string
}

// ReadHost reads the facts of this machine; storage is counted on the file system that holds dir, which must exist.
func ReadHost(dir string) (Host, error) {
	return readHost("/", dir)
}

// readHost reads /proc, /sys and /etc under root, so that a test can bring its own machine.
func readHost(root, dir string) (Host, error) {
	memory, err := readMemory(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return Host{}, err
	}
	disk, err := readDisk(dir)
	if err != nil {
		return Host{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Host{}, fmt.Errorf("read kernel version: %w", err)
	}
	return Host{
		CPUs:          int64(countCPUs(filepath.Join(root, "proc/cpuinfo"))),
		MemoryBytes:   memory.Total,
		StorageBytes:  disk.Total,
		HugePages:     readHugePages(filepath.Join(root, "sys/kernel/mm/hugepages")),
		KernelVersion: unix.ByteSliceToString(uts.Release[:]),
		OSImage:       readOSImage(filepath.Join(root, "etc/os-release")),
		MachineID:     readLine(filepath.Join(root, "etc/machine-id")),
		SystemUUID:    readLine(filepath.Join(root, "sys/class/dmi/id/product_uuid")),
		BootID:        readLine(filepath.Join(root, "proc/sys/kernel/random/boot_id")),
		Architecture:  runtime.GOARCH,
	}, nil
}

// countCPUs counts the machine's processors. runtime.NumCPU counts only those in this process's affinity mask, which says
// nothing about what pods may use; it is the answer when /proc/cpuinfo has no processor lines.
func countCPUs(cpuinfo string) int {
	data, err := os.ReadFile(cpuinfo)
	if err != nil {
		return runtime.NumCPU()
	}
	count := 0
	for line := range bytes.Lines(data) {
		if key, _, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(key)) == "processor" {
			count++
		}
	}
	if count == 0 {
		return runtime.NumCPU()
	}
	return count
}

// memory is bytes of RAM.
type memory struct{ Total, Available int64 }

func readMemory(meminfo string) (memory, error) {
	data, err := os.ReadFile(meminfo)
	if err != nil {
		return memory{}, fmt.Errorf("read memory size: %w", err)
	}
	fields := map[string]int64{}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		key, rest, ok := strings.Cut(scanner.Text(), ":")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if kib, err := strconv.ParseInt(number, 10, 64); err == nil {
			fields[key] = kib << 10
		}
	}
	if fields["MemTotal"] <= 0 {
		return memory{}, fmt.Errorf("read memory size: %s has no MemTotal", meminfo)
	}
	return memory{Total: fields["MemTotal"], Available: fields["MemAvailable"]}, nil
}

// disk is the bytes and inodes of a file system; Available is what is left for everyone.
type disk struct{ Total, Available, Inodes, InodesFree int64 }

func readDisk(dir string) (disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return disk{}, fmt.Errorf("read disk size of %s: %w", dir, err)
	}
	block := s.Frsize
	if block == 0 {
		block = s.Bsize
	}
	return disk{
		Total:      int64(s.Blocks) * block,
		Available:  int64(s.Bavail) * block,
		Inodes:     int64(s.Files),
		InodesFree: int64(s.Ffree),
	}, nil
}

// readHugePages reads the directories hugepages-<size>kB; a kernel without huge pages has none.
func readHugePages(dir string) map[int64]int64 {
	pages := map[int64]int64{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pages
	}
	for _, entry := range entries {
		text := strings.TrimSuffix(strings.TrimPrefix(entry.Name(), "hugepages-"), "kB")
		kib, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			continue
		}
		count, err := strconv.ParseInt(readLine(filepath.Join(dir, entry.Name(), "nr_hugepages")), 10, 64)
		if err != nil {
			continue
		}
		pages[kib<<10] = count * kib << 10
	}
	return pages
}

func readOSImage(osRelease string) string {
	data, err := os.ReadFile(osRelease)
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && key == "PRETTY_NAME" {
			return strings.Trim(value, `"'`)
		}
	}
	return "Linux"
}

// readLine reads the first line of a small file; a missing or unreadable file is the empty string, because no fact read
// through it is worth refusing to start.
func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}
