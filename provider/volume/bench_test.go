package volume_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider/volume"
	"github.com/sidemount/sidemount/provider/volume/volumetest"
)

// BenchmarkPod makes and removes what nearly every pod has: the ServiceAccount's token with the cluster's certificate, and an
// emptyDir. The API answers at once.
func BenchmarkPod(b *testing.B) {
	volumetest.NeedMounts(b)
	a := newAPI()
	a.configMaps["kube-root-ca.crt"] = map[string]string{"ca.crt": "certificate"}
	m, err := volume.New(volume.Options{Root: b.TempDir(), Objects: a, Tokens: a})
	if err != nil {
		b.Fatal(err)
	}
	pod := podWith(emptyDir("scratch", ""), projected("kube-api-access",
		corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
	))
	b.Run("SetUp and TearDown", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.SetUp(b.Context(), pod); err != nil {
				b.Fatal(err)
			}
			if err := m.TearDown(b.Context(), pod.UID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("SetUp again", func(b *testing.B) {
		pod := pod.DeepCopy()
		pod.UID = types.UID("again")
		pod.Spec.Volumes[1].Projected.Sources = pod.Spec.Volumes[1].Projected.Sources[1:]
		for b.Loop() {
			if _, err := m.SetUp(b.Context(), pod); err != nil {
				b.Fatal(err)
			}
		}
		if err := m.TearDown(b.Context(), pod.UID); err != nil {
			b.Fatal(err)
		}
	})
}
