package sidecar

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew")

// TestGolden resolves and injects the pod of each testdata/<case>.in.yaml against the other objects of that file.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(cases) < 12 {
		t.Fatalf("%d cases, error %v", len(cases), err)
	}
	for _, in := range cases {
		out := strings.TrimSuffix(in, ".in.yaml") + ".out.yaml"
		t.Run(strings.TrimSuffix(filepath.Base(in), ".in.yaml"), func(t *testing.T) {
			c := load(t, readFile(t, in))
			before := c.pod.DeepCopy()
			got := golden(t, c)
			if diff := cmp.Diff(before, c.pod); diff != "" {
				t.Errorf("the caller's pod was changed: %s", diff)
			}
			noSecrets(t, c, got)
			if *update {
				if err := os.WriteFile(out, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(readFile(t, out)), string(got)); diff != "" {
				t.Errorf("-want +got (go test ./sidecar -update writes it anew):\n%s", diff)
			}
		})
	}
}

func golden(t *testing.T, c *cluster) []byte {
	t.Helper()
	r, err := NewResolver(Options{Objects: c, Drivers: []string{DefaultDriver, "csi.juicefs.com"}, Version: "v0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := r.Resolve(t.Context(), c.pod)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := Inject(c.pod, mounts, testDirs)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Inject(pod, mounts, testDirs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pod, again); diff != "" {
		t.Errorf("the second injection changed the pod: %s", diff)
	}
	sound(t, pod)
	var b bytes.Buffer
	for _, m := range mounts {
		fmt.Fprintf(&b, "# volume %s options: %q read-only: %t\n", m.Volume.Name, m.Volume.Options, m.Volume.ReadOnly)
		for _, w := range m.Warnings {
			b.WriteString("# warning: " + w + "\n")
		}
	}
	text, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(text)
	return b.Bytes()
}

var testDirs = InjectOptions{
	AgentDir:   "/opt/sidemount/bin",
	SessionDir: func(v string) string { return "/run/sidemount/sessions/" + v },
	TargetDir:  func(v string) string { return "/var/lib/sidemount/pods/UID/volumes/sidemount.io~fuse/" + v },
}

// sound checks what the API server would have checked: names are DNS labels and unique, and every mount has its volume.
func sound(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		if volumes[v.Name] || len(v.Name) > 63 {
			t.Errorf("volume %s is there twice or too long", v.Name)
		}
		volumes[v.Name] = true
	}
	names := map[string]bool{}
	for _, c := range append(append([]corev1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...) {
		if names[c.Name] || len(c.Name) > 63 {
			t.Errorf("container %s is there twice or too long", c.Name)
		}
		names[c.Name] = true
		paths := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] || paths[m.MountPath] {
				t.Errorf("container %s: mount %s at %s has no volume or is there twice", c.Name, m.Name, m.MountPath)
			}
			paths[m.MountPath] = true
		}
	}
}

// noSecrets fails if the value of a Secret is in text.
func noSecrets(t *testing.T, c *cluster, text []byte) {
	t.Helper()
	for name, s := range c.secrets {
		for key, value := range s.Data {
			if len(value) > len("redis://") && key != keyStorage && bytes.Contains(text, value) {
				t.Errorf("Secret %s, key %s is in\n%s", name, key, text)
			}
		}
	}
}
