package mountpod

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// sample is a volume with everything that a key is made of.
func sample() sidecar.Mount {
	size := resource.MustParse("20Gi")
	return sidecar.Mount{
		Volume: mount.Volume{
			ID: "pvc-7f0c1f4e", Name: "data", Client: mount.JuiceFS, Config: map[string]string{"b": "2", "a": "1"},
			Options: []string{"cache-size=1024", "writeback"}, Secret: mount.Secret{"metaurl": "redis://meta/1", "name": "data"},
		},
		Claim: "data", PersistentVolume: "pvc-7f0c1f4e", Image: "registry.example/client:1", Argv: []string{"/usr/local/bin/sidemount-juicefs"},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("5Gi")},
		},
		HostPaths: []string{"/etc/ssl/certs", "/data"},
		Caches:    []sidecar.Cache{{Path: "/var/jfsCache-0", Claim: "fast"}, {Path: "/var/jfsCache-emptyDir", SizeLimit: &size}},
		UID:       65534, GID: 65534,
		Pod: sidecar.PodSettings{Labels: map[string]string{"team": "data"}, Annotations: map[string]string{"note": "x"}, DeleteDelay: time.Minute},
	}
}

func key(t *testing.T, m sidecar.Mount) string {
	t.Helper()
	secret, err := hashSecret([]byte("0123456789abcdef0123456789abcdef"), m.Volume.Secret)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyOf(m, secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A key that changes with a release of the driver would start a second client beside every one that runs. If it must, raise keyVersion.
func TestKeyIsStable(t *testing.T) {
	const want = "e20fcc2a0504688e8d2c14e8fde807deb1489f33321adaed0c2d4b2215bcdc5c"
	if got := key(t, sample()); got != want {
		t.Errorf("key %s, want %s", got, want)
	}
	if got := sessionOf("pvc-7f0c1f4e", want, 0); got != "pvc-7f0c1f4e-1090b8028873a4f291a5" {
		t.Errorf("session %s", got)
	}
}

func TestKeyIgnoresWhatHasNoEffect(t *testing.T) {
	want := key(t, sample())
	for name, change := range map[string]func(*sidecar.Mount){
		"order of directories": func(m *sidecar.Mount) { m.HostPaths = []string{"/data", "/etc/ssl/certs"} },
		"spelling of quantity": func(m *sidecar.Mount) { m.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1000m") },
		"name in the pod":      func(m *sidecar.Mount) { m.Volume.Name = "other" },
		"claim":                func(m *sidecar.Mount) { m.Claim = "other" },
		"delay":                func(m *sidecar.Mount) { m.Pod.DeleteDelay = 0 },
		"warnings":             func(m *sidecar.Mount) { m.Warnings = []string{"x"} },
	} {
		m := sample()
		change(&m)
		if key(t, m) != want {
			t.Errorf("%s makes another share", name)
		}
	}
	empty, none := sample(), sample()
	empty.Volume.Config, none.Volume.Config = map[string]string{}, nil
	if key(t, empty) != key(t, none) {
		t.Error("an empty map is not the same as none")
	}
}

func TestKeyTellsApartWhatHasAnEffect(t *testing.T) {
	seen := map[string]string{key(t, sample()): "sample"}
	for name, change := range map[string]func(*sidecar.Mount){
		"volume":           func(m *sidecar.Mount) { m.Volume.ID = "other" },
		"client":           func(m *sidecar.Mount) { m.Volume.Client = mount.Passthrough },
		"config":           func(m *sidecar.Mount) { m.Volume.Config = map[string]string{"a": "1"} },
		"options":          func(m *sidecar.Mount) { m.Volume.Options = []string{"cache-size=1024"} },
		"order of options": func(m *sidecar.Mount) { m.Volume.Options = []string{"writeback", "cache-size=1024"} },
		"read-only":        func(m *sidecar.Mount) { m.Volume.ReadOnly = true },
		"secret":           func(m *sidecar.Mount) { m.Volume.Secret = mount.Secret{"metaurl": "redis://meta/2", "name": "data"} },
		"image":            func(m *sidecar.Mount) { m.Image = "registry.example/client:2" },
		"command":          func(m *sidecar.Mount) { m.Argv = []string{"/other"} },
		"request":          func(m *sidecar.Mount) { m.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("2") },
		"no limit":         func(m *sidecar.Mount) { delete(m.Resources.Limits, corev1.ResourceCPU) },
		"directories":      func(m *sidecar.Mount) { m.HostPaths = []string{"/data"} },
		"cache":            func(m *sidecar.Mount) { m.Caches[0].Claim = "slow" },
		"size of cache":    func(m *sidecar.Mount) { m.Caches[1].SizeLimit = nil },
		"inline cache": func(m *sidecar.Mount) {
			m.Caches[0] = sidecar.Cache{Path: "/var/jfsCache-0", Inline: &corev1.CSIVolumeSource{Driver: "x"}}
		},
		"user":            func(m *sidecar.Mount) { m.UID = 1 },
		"group":           func(m *sidecar.Mount) { m.GID = 1 },
		"labels":          func(m *sidecar.Mount) { m.Pod.Labels = nil },
		"annotations":     func(m *sidecar.Mount) { m.Pod.Annotations = nil },
		"service account": func(m *sidecar.Mount) { m.Pod.ServiceAccount = "cloud" },
	} {
		m := sample()
		change(&m)
		k := key(t, m)
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s are the same share", name, other)
		}
		seen[k] = name
	}
}

func TestNamesAreValid(t *testing.T) {
	for _, volume := range []mount.VolumeID{"pvc-1", "PV_With/Strange.Name", "---", "", mount.VolumeID(strings.Repeat("x", 300)), "äöü"} {
		for _, node := range []string{"node-1", "ip-10-0-0-1.eu-central-1.compute.internal", strings.Repeat("n", 253)} {
			name := newName(node, volume)
			if len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Contains(name, "--") {
				t.Errorf("pod name %q", name)
			}
		}
		id := string(sessionOf(volume, "key", 0))
		if len(id) > 63 || strings.HasPrefix(id, "-") || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("session %q", id)
		}
	}
}
