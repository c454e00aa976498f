package cri

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProbeHost(t *testing.T) {
	root := t.TempDir()
	for file, content := range map[string]string{
		"proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n",
		"sys/fs/cgroup/memory/memory.memsw.limit_in_bytes":        "9",
		"sys/kernel/mm/hugepages/hugepages-1048576kB/nr":          "0",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr":             "0",
		"sys/kernel/mm/hugepages/hugepages-64kB/nr":               "0",
		"sys/module/apparmor/parameters/enabled":                  "Y\n",
		"sys/fs/selinux/enforce":                                  "1",
		"sys/devices/system/cpu/cpu1/thermal_throttle/core_count": "0",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ProbeHost(root)
	if err != nil {
		t.Fatal(err)
	}
	want := Host{
		Memory: 16 << 20, SwapAccounting: true, HugePageSizes: []string{"64KB", "2MB", "1GB"}, AppArmor: true, SELinux: true,
		MaskedPaths: []string{"/sys/devices/system/cpu/cpu1/thermal_throttle"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ProbeHost(t.TempDir()); err == nil {
		t.Error("a machine without /proc has memory")
	}
	if h, err := ProbeHost("/"); err != nil || h.Memory < 1<<20 {
		t.Errorf("this machine: %+v, %v", h, err)
	}
}
