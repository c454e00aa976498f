package chart

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// kubernetes is the version that templates are rendered for.
const kubernetes = "1.36.3"

// helm returns the program that hack/helm/build.sh makes.
func helm(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("BIN")
	if bin == "" {
		bin = "../../.cache/bin"
	}
	program, err := filepath.Abs(filepath.Join(bin, "helm"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skipf("skipped: %s is not built, run hack/helm/build.sh", program)
	}
	return program
}

// render returns what the chart makes of a file of values, or helm's error message.
func render(t *testing.T, values string) (string, error) {
	t.Helper()
	return template(t, "demo", source, "--namespace", "storage", "--values", values)
}

// template runs helm template.
func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	// helm reads the chart, and go test knows of what the test itself has looked at only: it would take an old result for this chart's.
	if err := filepath.WalkDir(source, func(path string, _ fs.DirEntry, err error) error {
		_, missing := os.Stat(path)
		return errors.Join(err, missing)
	}); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), helm(t), append([]string{"template", "--kube-version", kubernetes}, args...)...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var message strings.Builder
	cmd.Stderr = &message
	out, err := cmd.Output()
	if err != nil {
		return message.String(), err
	}
	return string(out), nil
}

func TestRenderedManifests(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, values := range cases {
		name := strings.TrimSuffix(filepath.Base(values), ".values.yaml")
		t.Run(name, func(t *testing.T) {
			got, err := render(t, values)
			if err != nil {
				t.Fatal(got)
			}
			wellFormed(t, got)
			golden := filepath.Join("testdata", name+".golden.yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the chart renders something else than %s; look at the difference after go test ./test/chart -update", golden)
			}
		})
	}
}

// suiteConfiguration is the configuration that test/webhook applies: the chart's, for a webhook that is a program outside of the cluster.
const suiteConfiguration = "../webhook/testdata/admission.yaml"

func TestWebhooksAreTestedWithTheChartsConfiguration(t *testing.T) {
	got, err := template(t, "sidemount", source, "--namespace", "sidemount", "--set", "webhook.enabled=true", "--show-only", "templates/webhook/admission.yaml")
	if err != nil {
		t.Fatal(got)
	}
	service := regexp.MustCompile(`service: \{name: sidemount-webhook, namespace: sidemount, port: 443(, path: )?([^}]*)\}`)
	got = "# Made from the chart: go test ./test/chart -update. The suite fills in the URL.\n" + service.ReplaceAllString(got, "url: URL$2")
	if strings.Contains(got, "service:") {
		t.Fatalf("a webhook has another kind of address:\n%s", got)
	}
	if *update {
		if err := os.WriteFile(suiteConfiguration, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(suiteConfiguration)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not the chart's configuration; look at the difference after go test ./test/chart -update", suiteConfiguration)
	}
}

// object is what every manifest has.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name, Namespace string
		Labels          map[string]string
	} `json:"metadata"`
	Spec struct {
		Template *struct {
			Spec struct {
				HostNetwork bool
				Containers  []container
			}
		}
	}
}

type container struct {
	Name            string
	SecurityContext struct {
		Privileged, AllowPrivilegeEscalation *bool
		ReadOnlyRootFilesystem               bool
	}
	Resources struct{ Requests, Limits map[string]any }
}

// wellFormed checks what holds for every set of values.
func wellFormed(t *testing.T, manifests string) {
	t.Helper()
	seen := map[string]bool{}
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(document), &map[string]any{}); err != nil {
			t.Errorf("%v in\n%s", err, document)
			continue
		}
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Errorf("%v in\n%s", err, document)
			continue
		}
		if o.Kind == "" {
			continue
		}
		id := strings.Join([]string{o.APIVersion, o.Kind, o.Metadata.Namespace, o.Metadata.Name}, "/")
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		if o.Metadata.Labels["app.kubernetes.io/instance"] != "demo" {
			t.Errorf("%s has no label of the release", id)
		}
		checkPod(t, id, o)
	}
}

// checkPod wants every container to ask for memory, to write nowhere in its image, and to have no privilege unless it is the node's.
func checkPod(t *testing.T, id string, o object) {
	t.Helper()
	if o.Spec.Template == nil {
		return
	}
	for _, c := range o.Spec.Template.Spec.Containers {
		privileged := c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
		if privileged != (o.Kind == "DaemonSet" || o.Kind == "StatefulSet") {
			t.Errorf("%s, container %s: privileged is %v", id, c.Name, privileged)
		}
		if !privileged && (c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation) {
			t.Errorf("%s, container %s may gain privileges", id, c.Name)
		}
		if !c.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("%s, container %s can write to its root file system", id, c.Name)
		}
		if c.Resources.Requests["memory"] == nil {
			t.Errorf("%s, container %s asks for no memory", id, c.Name)
		}
	}
}

// The message is what the person who has made the mistake reads.
func TestContradictionsAreRefusedInWords(t *testing.T) {
	for _, c := range []struct{ name, values, want string }{
		{"nothing to install", "controller: {enabled: false}\nnode: {enabled: false}", "there is nothing to install"},
		{"class without a controller", "controller: {enabled: false}\nstorageClasses: [{name: a, secret: {name: s}}]", "storageClasses need the controller"},
		{"snapshots without a controller", "controller: {enabled: false}\nsnapshots: {enabled: true}", "snapshots are made by the controller"},
		{"snapshot controller alone", "snapshots: {controller: true}", "snapshots.enabled is not"},
		{"snapshot classes without snapshots", "snapshots: {classes: [{name: a, secret: {name: s}}]}", "snapshots.enabled is false"},
		{"two default classes", "storageClasses: [{name: a, default: true, secret: {name: s}}, {name: b, default: true, secret: {name: s}}]", "more than one of storageClasses is the default"},
		{"class without a secret", "storageClasses: [{name: a, secret: {}}]", "a has no secret"},
		{"state below the kubelet", "node: {stateDir: /var/lib/kubelet/sidemount}", "the kubelet removes what it does not know"},
		{"a class of the system's", "mountPods: {priorityClass: {create: true}}", "names with system- belong to Kubernetes"},
		{"a misspelt value", "kubletDir: /var/lib/kubelet", "'kubletDir' not allowed"},
		{"a misspelt value further down", "node: {stateDirectory: /x}", "'stateDirectory' not allowed"},
		{"a relative path", "kubeletDir: var/lib/kubelet", "/kubeletDir"},
		{"a name that no driver can have", "driverName: CSI_juicefs", "/driverName"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(values, []byte(c.values), 0o600); err != nil {
				t.Fatal(err)
			}
			message, err := render(t, values)
			if err == nil {
				t.Fatal("the chart took it")
			}
			if !strings.Contains(message, c.want) {
				t.Errorf("got %q, want it to say %q", message, c.want)
			}
		})
	}
}

func TestLint(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), helm(t), "lint", "--strict", "--quiet", "--kube-version", kubernetes, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
