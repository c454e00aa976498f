package csi

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/sidecar"
)

// FuzzSubPath lets a tenant write an annotation: whatever comes out stays below what the administrator has written around it, and
// the nodes read the same directory out of the attributes.
func FuzzSubPath(f *testing.F) {
	for _, value := range []string{"a", "a/b", "..", "../..", "/", "a,subdir=/", "a\n", "${.pvc.name}", "${.node.name}", ".sidemount", strings.Repeat("x", 300)} {
		f.Add(value)
	}
	resolver, err := sidecar.NewResolver(sidecar.Options{Objects: shop()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		known := &facts{name: "data", namespace: "shop", claim: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"dir": value}}}}
		got, err := known.subPath(t.Context(), "${.pvc.namespace}/x-${.pvc.annotations.dir}/y")
		if err != nil {
			return
		}
		if got != "shop/x-"+value+"/y" {
			t.Fatalf("%q becomes %q", value, got)
		}
		clean, err := admin.CleanPath(got)
		if err != nil {
			return
		}
		m, err := resolver.Describe(sidecar.Source{Attributes: map[string]string{"subPath": clean, "mountOptions": "subdir=top"}, Secret: credentials()})
		if err != nil {
			t.Fatalf("%q is made and cannot be mounted: %v", got, err)
		}
		if options := m.Volume.Options; len(options) != 1 || options[0] != "subdir=/top/"+clean {
			t.Fatalf("%q is made and %v mounted", clean, options)
		}
	})
}

// FuzzValue lets a tenant write an annotation that becomes an option and a word of a JSON map.
func FuzzValue(f *testing.F) {
	for _, value := range []string{"512", "1,subdir=/", `","b":"c`, "\\", "a: b", "x\ny", ""} {
		f.Add(value)
	}
	resolver, err := sidecar.NewResolver(sidecar.Options{Objects: shop()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		known := &facts{name: "data", namespace: "shop", claim: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"v": value}}}}
		attributes, err := known.attributes(t.Context(), map[string]string{
			"mountOptions": "max-uploads=${.pvc.annotations.v}", "juicefs/mount-labels": `{"a": "${.pvc.annotations.v}"}`,
		}, nil)
		if err != nil {
			return
		}
		m, err := resolver.Describe(sidecar.Source{Attributes: attributes, Secret: credentials()})
		if err != nil {
			return
		}
		if len(m.Volume.Options) != 1 || len(m.Pod.Labels) != 1 || !strings.HasPrefix(m.Volume.Options[0], "max-uploads=") {
			t.Fatalf("%q gives options %q and labels %v", value, m.Volume.Options, m.Pod.Labels)
		}
	})
}
