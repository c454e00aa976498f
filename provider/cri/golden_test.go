package cri

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew")

// goldenInput is a testdata/*.in.yaml. Each container is configured with the input of its name, or else with that of "*".
type goldenInput struct {
	Pod        corev1.Pod                `json:"pod"`
	Host       Host                      `json:"host"`
	Sandbox    SandboxInput              `json:"sandbox"`
	DNS        *DNS                      `json:"dns"`
	Containers map[string]ContainerInput `json:"containers"`
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			out := filepath.Join("testdata", name+".out.yaml")
			got := render(t, file)
			if *update {
				if err := os.WriteFile(out, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", out, diff)
			}
		})
	}
}

func render(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var in goldenInput
	if err := yaml.UnmarshalStrict(data, &in); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	in.Sandbox.Host = in.Host
	if in.DNS != nil {
		in.Sandbox.DNS, _ = in.DNS.Config(&in.Pod)
	}
	sandbox, err := SandboxConfig(&in.Pod, in.Sandbox)
	if err != nil {
		t.Fatalf("SandboxConfig: %v", err)
	}
	out := map[string]any{"sandbox": tree(t, sandbox)}
	containers := map[string]any{}
	for _, c := range allContainers(&in.Pod) {
		input, ok := in.Containers[c.Name]
		if !ok {
			input = in.Containers["*"]
		}
		input.Host = in.Host
		config, err := ContainerConfig(&in.Pod, c, input)
		if err != nil {
			t.Fatalf("ContainerConfig(%s): %v", c.Name, err)
		}
		containers[c.Name] = tree(t, config)
	}
	out["containers"] = containers
	got, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func allContainers(pod *corev1.Pod) []*corev1.Container {
	var out []*corev1.Container
	for i := range pod.Spec.InitContainers {
		out = append(out, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		out = append(out, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		out = append(out, &c)
	}
	return out
}

// tree turns a message into maps, with the values of variables as text.
func tree(t *testing.T, m proto.Message) map[string]any {
	t.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	envs, _ := out["envs"].([]any)
	for _, e := range envs {
		kv := e.(map[string]any)
		if encoded, ok := kv["value"].(string); ok {
			raw, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			kv["value"] = string(raw)
		}
	}
	return out
}
