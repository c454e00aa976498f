package node

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeversion "k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testHost() Host {
	return Host{
		CPUs:          8,
		MemoryBytes:   32 << 30,
		StorageBytes:  100 << 30,
		HugePages:     map[int64]int64{2 << 20: 64 << 20, 1 << 30: 0},
		KernelVersion: "6.18.0",
		OSImage:       "Debian GNU/Linux 12 (bookworm)",
		MachineID:     "0123456789abcdef0123456789abcdef",
		SystemUUID:    "00000000-1111-2222-3333-444444444444",
		BootID:        "55555555-6666-7777-8888-999999999999",
		Architecture:  "amd64",
	}
}

func testObject(name string) Object {
	return Object{
		Name:           name,
		Addresses:      []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.7"}, {Type: corev1.NodeHostName, Address: name}},
		Version:        Version("v1.36.3", "v0.1.0"),
		RuntimeVersion: "containerd://2.4.2",
	}
}

func TestBuild(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	custom := testObject("edge-1")
	custom.Port = 10350
	custom.Labels = map[string]string{"topology.kubernetes.io/zone": "a", "team": "blue"}
	custom.Taints = []corev1.Taint{{Key: "dedicated", Value: "batch", Effect: corev1.TaintEffectNoExecute}}
	custom.ProviderID = "acme://edge-1"
	custom.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:  resource.MustParse("500m"),
		corev1.ResourcePods: resource.MustParse("1000"),
	}
	custom.Reserved = corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("1"),
		corev1.ResourceMemory: resource.MustParse("2Gi"),
		"example.com/unknown": resource.MustParse("1"),
	}
	custom.RuntimeHandlers = []corev1.NodeRuntimeHandler{{Name: ""}, {Name: "kata"}}
	untainted := testObject("plain")
	untainted.Taints = []corev1.Taint{}
	for name, o := range map[string]Object{"default": testObject("virtual-1"), "custom": custom, "untainted": untainted} {
		t.Run(name, func(t *testing.T) {
			if err := o.Validate(); err != nil {
				t.Fatal(err)
			}
			got, err := yaml.Marshal(Build(o, testHost(), ConditionsOf(nil, Facts{}, at)))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".out.yaml")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVersionIsReadableForKubernetes(t *testing.T) {
	for _, own := range []string{"0.1.0", "0.1.0+abcdef0-dirty", "dev"} {
		parsed, err := kubeversion.ParseSemantic(Version("v1.36.3", own))
		if err != nil {
			t.Errorf("version with %q: %v", own, err)
			continue
		}
		if parsed.Major() != 1 || parsed.Minor() != 36 || parsed.Patch() != 3 {
			t.Errorf("version with %q reads as %s", own, parsed)
		}
	}
}

func TestReadHostOfThisMachine(t *testing.T) {
	host, err := ReadHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if host.CPUs < 1 || host.MemoryBytes < 1<<20 || host.StorageBytes < 1<<20 || host.KernelVersion == "" || host.BootID == "" {
		t.Errorf("facts are missing: %+v", host)
	}
}

func TestReadHostFromFiles(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{
		"proc/meminfo":                   "MemTotal:        1024 kB\nMemFree: 1 kB\nMemAvailable:     512 kB\n",
		"proc/cpuinfo":                   "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n\nprocessor\t: 2\n",
		"proc/sys/kernel/random/boot_id": "boot-1\n",
		"etc/os-release":                 "NAME=\"Acme\"\nPRETTY_NAME=\"Acme OS 7\"\n",
		"etc/machine-id":                 "machine-1\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "3\n",
		"sys/kernel/mm/hugepages/garbage/nr_hugepages":          "9\n",
	}
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readHost(root, root)
	if err != nil {
		t.Fatal(err)
	}
	got.StorageBytes, got.KernelVersion, got.Architecture = 0, "", ""
	want := Host{CPUs: 3, MemoryBytes: 1 << 20, HugePages: map[int64]int64{2 << 20: 6 << 20}, OSImage: "Acme OS 7", MachineID: "machine-1", BootID: "boot-1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("host (-want +got):\n%s", diff)
	}
}
