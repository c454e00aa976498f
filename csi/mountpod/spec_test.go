package mountpod

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sidemount/sidemount/sidecar"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMountPod(t *testing.T) {
	for name, change := range map[string]func(*Options, *sidecar.Mount){
		"default": func(_ *Options, m *sidecar.Mount) { m.Caches, m.Pod, m.HostPaths = nil, sidecar.PodSettings{}, nil },
		"all": func(o *Options, m *sidecar.Mount) {
			o.HostNetwork, o.ImagePullSecrets, m.Pod.ServiceAccount = true, []corev1.LocalObjectReference{{Name: "registry"}}, "cloud"
			m.Pod.Labels = map[string]string{"team": "data", SessionLabel: "forged", NameLabel: "forged"}
			m.Pod.Annotations = map[string]string{"note": "x", VolumeAnnotation: "forged"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{
				Driver: "csi.sidemount.io", NodeName: "node-1", NodeUID: "5d3f", Namespace: "sidemount", AgentDir: "/var/lib/sidemount/bin",
				Grace: 30 * time.Second, PriorityClass: "system-node-critical", ImagePullPolicy: corev1.PullIfNotPresent, ServiceAccount: "sidemount-mount",
				Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			}
			m := sample()
			change(&o, &m)
			pod := podOf(&o, m, place{session: "pvc-7f0c1f4e-0123", name: "sidemount-node-1-pvc-7f0c1f4e-abcdef", sessionDir: "/run/sidemount/csi/sessions/pvc-7f0c1f4e-0123"})
			got, err := yaml.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
