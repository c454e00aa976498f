package sidecar

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// cached describes a volume with these attributes.
func cached(t *testing.T, mountPod bool, attributes map[string]string) (Mount, error) {
	t.Helper()
	r, err := NewResolver(Options{Objects: &cluster{}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Describe(Source{
		Name: "volume", Handle: "pv-data", Object: "PersistentVolume pv-data", AttributesField: "spec.csi.volumeAttributes",
		Attributes: attributes, MountPod: mountPod, SecretObject: "Secret storage/data",
		Secret: map[string]string{"name": "data", "metaurl": "redis://meta/1"},
	})
}

func TestMountPodHasCachesInVolumesOfItsOwn(t *testing.T) {
	attributes := map[string]string{
		attrCachePVC: "fast, slow,fast", attrCacheEmptyDir: ":1Gi", attrHostPath: "/mnt/nvme",
		attrCacheInline:  `{"csi": {"driver": "inline.example", "volumeAttributes": {"size": "1Gi"}}}`,
		attrMountOptions: "cache-dir=/mnt/nvme/jfs",
	}
	m, err := cached(t, true, attributes)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range m.Caches {
		src := c.source()
		switch {
		case src.PersistentVolumeClaim != nil:
			got = append(got, c.Path+" claim "+src.PersistentVolumeClaim.ClaimName)
		case src.CSI != nil:
			got = append(got, c.Path+" csi "+src.CSI.Driver+" "+src.CSI.VolumeAttributes["size"])
		default:
			got = append(got, c.Path+" emptyDir "+src.EmptyDir.SizeLimit.String())
		}
	}
	want := []string{
		"/var/jfsCache-0 claim fast", "/var/jfsCache-1 claim slow", "/var/jfsCache-emptyDir emptyDir 1Gi",
		"/var/jfsCache-inlineVolume-0 csi inline.example 1Gi",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	option := "cache-dir=/var/jfsCache-0:/var/jfsCache-1:/var/jfsCache-emptyDir:/var/jfsCache-inlineVolume-0:/mnt/nvme/jfs"
	if !slices.Contains(m.Volume.Options, option) {
		t.Errorf("options are %q", m.Volume.Options)
	}
	if len(m.Warnings) != 0 {
		t.Errorf("warnings are %q", m.Warnings)
	}
	container, volumes := Container(m, Place{SessionDir: "/run/sessions/s"})
	if len(container.VolumeMounts) != len(volumes)+1 {
		t.Errorf("%d mounts of %d volumes and the agent's", len(container.VolumeMounts), len(volumes))
	}
	if !slices.ContainsFunc(volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == "slow"
	}) {
		t.Error("the claim is no volume of the pod")
	}
}

func TestSidecarSaysWhichCachesItCannotHave(t *testing.T) {
	m, err := cached(t, false, map[string]string{attrCachePVC: "fast", attrCacheInline: "csi: {driver: x}"})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Caches) != 0 || len(m.Warnings) != 2 {
		t.Errorf("caches %v, warnings %q", m.Caches, m.Warnings)
	}
}

func TestCacheThatOthersMayShareIsNotCleaned(t *testing.T) {
	m, err := cached(t, true, map[string]string{attrCachePVC: "fast", attrCleanCache: "true"})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0], attrCleanCache) {
		t.Errorf("warnings are %q", m.Warnings)
	}
}

func TestMalformedCachesOfMountPods(t *testing.T) {
	for key, value := range map[string]string{attrCachePVC: "Not/AName", attrCacheInline: "csi: {}"} {
		if _, err := cached(t, true, map[string]string{key: value}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: error %v", key, value, err)
		}
	}
}
