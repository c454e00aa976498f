package image

import "testing"

func TestMirroredDropsTheHostOnly(t *testing.T) {
	for ref, want := range map[string]string{
		"busybox:1.36":                         "10.0.0.1:5000/library/busybox:1.36",
		"busybox":                              "10.0.0.1:5000/library/busybox:latest",
		"ghcr.io/sidemount/juicefs-client:dev": "10.0.0.1:5000/sidemount/juicefs-client:dev",
		"registry.k8s.io/pause:3.10":           "10.0.0.1:5000/pause:3.10",
		"localhost/pause:1":                    "10.0.0.1:5000/pause:1",
	} {
		got, err := mirrored(ref, "10.0.0.1:5000")
		if err != nil || got.Name() != want {
			t.Errorf("mirrored(%q) = %v, %v; want %s", ref, got, err, want)
		}
	}
}
