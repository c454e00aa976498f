package cri

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ProbeHost finds out what Host says about this machine; paths are those below root, which is "/" outside tests.
func ProbeHost(root string) (Host, error) {
	var h Host
	memory, err := memTotal(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return h, err
	}
	h.Memory = memory
	h.CgroupV2 = unified(filepath.Join(root, "sys/fs/cgroup"))
	h.SwapAccounting = swapAccounting(root, h.CgroupV2)
	h.HugePageSizes = hugePageSizes(filepath.Join(root, "sys/kernel/mm/hugepages"))
	h.AppArmor = firstByte(filepath.Join(root, "sys/module/apparmor/parameters/enabled")) == 'Y'
	_, err = os.Stat(filepath.Join(root, "sys/fs/selinux/enforce"))
	h.SELinux = err == nil
	h.MaskedPaths, _ = filepath.Glob(filepath.Join(root, "sys/devices/system/cpu/cpu*/thermal_throttle"))
	for i, p := range h.MaskedPaths {
		h.MaskedPaths[i] = "/" + strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
	}
	return h, nil
}

func memTotal(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read memory capacity: %w", err)
	}
	scan := bufio.NewScanner(bytes.NewReader(data))
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 || fields[0] != "MemTotal:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory capacity: %w", err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("read memory capacity: %s has no MemTotal", path)
}

func unified(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// swapAccounting looks at the memory controller's own file. On the unified hierarchy the root group has none, so that any other
// group tells.
func swapAccounting(root string, v2 bool) bool {
	pattern := "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
	if v2 {
		pattern = "sys/fs/cgroup/*/memory.swap.max"
	}
	found, err := filepath.Glob(filepath.Join(root, pattern))
	return err == nil && len(found) > 0
}

// hugePageSizes names the kernel's page sizes in the way of the hugetlb controller, "2MB" for hugepages-2048kB.
func hugePageSizes(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var sizes []int64
	for _, e := range entries {
		kib, ok := strings.CutSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB")
		n, err := strconv.ParseInt(kib, 10, 64)
		if ok && err == nil {
			sizes = append(sizes, n<<10)
		}
	}
	slices.Sort(sizes)
	names := make([]string, len(sizes))
	for i, s := range sizes {
		names[i] = PageSizeName(s)
	}
	return names
}

// PageSizeName spells the size of a page, in bytes, as the hugetlb controller does: with the largest unit of 1024 that leaves a whole number.
func PageSizeName(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	i := 0
	for bytes >= 1024 && bytes%1024 == 0 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return strconv.FormatInt(bytes, 10) + units[i]
}

func firstByte(path string) byte {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return 0
	}
	return data[0]
}
