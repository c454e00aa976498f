package engine

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimitIsTheSmallestOfAllCgroups(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	tests := []struct {
		name string
		root fstest.MapFS
		want uint64
	}{
		{"no cgroups", fstest.MapFS{}, 0},
		{"v2 without limit", fstest.MapFS{
			"proc/self/cgroup":         file("0::/pod/container\n"),
			"sys/fs/cgroup/memory.max": file("max\n"),
		}, 0},
		{"v2", fstest.MapFS{
			"proc/self/cgroup":                       file("0::/pod/container\n"),
			"sys/fs/cgroup/pod/container/memory.max": file("max\n"),
			"sys/fs/cgroup/pod/memory.max":           file("536870912\n"),
			"sys/fs/cgroup/memory.max":               file("1073741824\n"),
		}, 512 << 20},
		{"v2 in a namespace", fstest.MapFS{
			"proc/self/cgroup":         file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("268435456\n"),
		}, 256 << 20},
		{"v1", fstest.MapFS{
			"proc/self/cgroup": file("5:cpu,cpuacct:/a\n4:memory:/docker/x\n1:name=systemd:/a\n"),
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": file("268435456\n"),
		}, 256 << 20},
		{"v1 mounted at the container's own", fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/docker/x\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("134217728\n"),
		}, 128 << 20},
		{"v1 without limit", fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/docker/x\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := MemoryLimit(tt.root)
			if err != nil || got != tt.want {
				t.Errorf("limit is %d (%v), want %d", got, err, tt.want)
			}
		})
	}
}

func TestBudgetStaysWithinTheLimit(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		limit   uint64
		want    Budget
	}{
		{"no limit", nil, 0, Budget{Buffer: 300 * mib, Cache: 256 * mib}},
		{"no limit, cache on disk", []string{"cache-dir=/cache"}, 0, Budget{Buffer: 300 * mib, Cache: 100 << 30}},
		{"roomy", nil, 5 << 30, Budget{Buffer: 300 * mib, Cache: 256 * mib, Heap: (5 << 30) / 10 * 8}},
		{"tight", nil, 460 * mib, Budget{Buffer: 100 * mib, Cache: 75 * mib, Heap: 460 * mib / 10 * 8}},
		{"options too large", []string{"buffer-size=1024,cache-size=1024"}, 460 * mib,
			Budget{Buffer: 100 * mib, Cache: 75 * mib, Heap: 460 * mib / 10 * 8, Reduced: true}},
		{"tiny", nil, 64 * mib, Budget{Buffer: 32 * mib, Cache: 24 * mib, Heap: 64 * mib / 10 * 8}},
		{"cache on disk keeps its size", []string{"cache-dir=/cache,cache-size=1024"}, 460 * mib,
			Budget{Buffer: 100 * mib, Cache: 1 << 30, Heap: 460 * mib / 10 * 8}},
		{"no cache", []string{"cache-size=0"}, 460 * mib, Budget{Buffer: 100 * mib, Heap: 460 * mib / 10 * 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := parseOptions(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if got := o.budget(tt.limit); got != tt.want {
				t.Errorf("budget is %+v, want %+v", got, tt.want)
			}
		})
	}
}
