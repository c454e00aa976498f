package sidecar

import (
	"bytes"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestDemo keeps the manifests that users copy in step with what is understood.
func TestDemo(t *testing.T) {
	for _, job := range []string{"ingest", "verify"} {
		t.Run(job, func(t *testing.T) {
			c := load(t, readFile(t, "../hack/demo/volume.yaml"))
			bind(c)
			var j batchv1.Job
			if err := yaml.UnmarshalStrict(readFile(t, "../hack/demo/"+job+".yaml"), &j); err != nil {
				t.Fatal(err)
			}
			if j.Name != job {
				t.Errorf("the Job's name is %s", j.Name)
			}
			accepted(t, c, &corev1.Pod{ObjectMeta: j.ObjectMeta, Spec: j.Spec.Template.Spec})
		})
	}
	t.Run("shell", func(t *testing.T) {
		c := load(t, append(append(readFile(t, "../hack/demo/volume.yaml"), "---\n"...), readFile(t, "../hack/demo/shell.yaml")...))
		bind(c)
		accepted(t, c, c.pod)
	})
	t.Run("namespace", func(t *testing.T) {
		var ns corev1.Namespace
		if err := yaml.UnmarshalStrict(readFile(t, "../hack/demo/namespace.yaml"), &ns); err != nil || ns.Name != "demo" {
			t.Errorf("namespace %q, error %v", ns.Name, err)
		}
	})
}

// bind does what the PersistentVolume controller would do.
func bind(c *cluster) {
	for _, claim := range c.claims {
		claim.Status.Phase = corev1.ClaimBound
		c.volumes[claim.Spec.VolumeName].Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name}
	}
}

func accepted(t *testing.T, c *cluster, pod *corev1.Pod) {
	t.Helper()
	mounts, err := resolver(t, c).Resolve(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) != 1 || len(mounts[0].Warnings) != 0 {
		t.Fatalf("%d mounts, warnings %q", len(mounts), mounts[0].Warnings)
	}
	out, err := Inject(pod, mounts, testDirs)
	if err != nil {
		t.Fatal(err)
	}
	if name := out.Spec.InitContainers[0].Name; name != "sidemount-data" {
		t.Errorf("the sidecar is %s", name)
	}
	sound(t, out)
	text, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("sqlite3://")) {
		t.Error("the Secret is in the pod")
	}
	for _, container := range pod.Spec.Containers {
		if sc := container.SecurityContext; sc == nil || *sc.AllowPrivilegeEscalation || sc.Capabilities.Drop[0] != "ALL" || !*pod.Spec.SecurityContext.RunAsNonRoot {
			t.Errorf("container %s does not fit Pod Security restricted", container.Name)
		}
	}
}
