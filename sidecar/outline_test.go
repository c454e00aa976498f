package sidecar

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// testClasses are StorageClasses; "" is the default one.
type testClasses map[string]*storagev1.StorageClass

func (c testClasses) StorageClass(_ context.Context, name string) (*storagev1.StorageClass, error) {
	if class, ok := c[name]; ok {
		return class, nil
	}
	return nil, apierrors.NewNotFound(storagev1.Resource("storageclasses"), name)
}

func outlineOf(t *testing.T, classes testClasses, change func(*cluster)) (Outlined, error) {
	t.Helper()
	c := load(t, readFile(t, "testdata/static.in.yaml"))
	if change != nil {
		change(c)
	}
	// An outline must not need any Secret.
	c.fail = func(resource, name string) error {
		if resource == "secrets" {
			t.Errorf("Secret %s was read", name)
		}
		return nil
	}
	r, err := NewResolver(Options{Objects: c, Classes: classes, Version: "v0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	return r.Outline(t.Context(), c.pod)
}

func TestOutlineOfABoundClaim(t *testing.T) {
	out, err := outlineOf(t, testClasses{}, nil)
	if err != nil || len(out.Mounts) != 1 || out.Mounts[0].Volume.Name != "data" || out.Mounts[0].Volume.Secret != nil {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestOutlineOfAnUnboundClaim(t *testing.T) {
	class := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "jfs"}, Provisioner: DefaultDriver, MountOptions: []string{"writeback", "subdir=${.pvc.name}"},
		Parameters: map[string]string{
			"juicefs/mount-cpu-limit": "3", "pathPattern": "${.pvc.name}", "csi.storage.k8s.io/node-publish-secret-name": "jfs",
		},
	}
	for name, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"named":   func(claim *corev1.PersistentVolumeClaim) { claim.Spec.StorageClassName = ptr("jfs") },
		"default": func(claim *corev1.PersistentVolumeClaim) { claim.Spec.StorageClassName = nil },
	} {
		t.Run(name, func(t *testing.T) {
			out, err := outlineOf(t, testClasses{"jfs": class, "": class}, func(c *cluster) {
				claim := c.claims["shop/data"]
				claim.Spec.VolumeName, claim.Status.Phase = "", corev1.ClaimPending
				change(claim)
			})
			if err != nil || len(out.Mounts) != 1 {
				t.Fatalf("got %+v, %v", out, err)
			}
			m := out.Mounts[0]
			if cpu := m.Resources.Limits[corev1.ResourceCPU]; cpu.String() != "3" || !slices.Contains(m.Volume.Options, "writeback") {
				t.Errorf("the class's parameters are not followed: %+v", m)
			}
		})
	}
}

func TestOutlineOfAnEphemeralVolume(t *testing.T) {
	out, err := outlineOf(t, testClasses{"jfs": {Provisioner: DefaultDriver}}, func(c *cluster) {
		c.pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("jfs")}},
		}}
	})
	if err != nil || len(out.Mounts) != 1 {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestOutlinePassesOver(t *testing.T) {
	for name, change := range map[string]func(*cluster){
		"another driver's volume": func(c *cluster) { c.volumes["pv-data"].Spec.CSI.Driver = "ebs.csi.aws.com" },
		"another provisioner's class": func(c *cluster) {
			c.claims["shop/data"].Spec.VolumeName, c.claims["shop/data"].Spec.StorageClassName = "", ptr("disk")
		},
		"a volume that nobody mounts": func(c *cluster) { c.pod.Spec.Containers[0].VolumeMounts = nil },
		"another driver's inline volume": func(c *cluster) {
			c.pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "secrets-store.csi.k8s.io"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := outlineOf(t, testClasses{"disk": {Provisioner: "ebs.csi.aws.com"}}, change)
			if err != nil || len(out.Mounts) != 0 || len(out.Unknown) != 0 {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}

func TestOutlineDoesNotGuess(t *testing.T) {
	for name, change := range map[string]func(*cluster){
		"no claim":  func(c *cluster) { delete(c.claims, "shop/data") },
		"no volume": func(c *cluster) { delete(c.volumes, "pv-data") },
		"no class":  func(c *cluster) { c.claims["shop/data"].Spec.VolumeName = "" },
		"unknown class": func(c *cluster) {
			c.claims["shop/data"].Spec.VolumeName, c.claims["shop/data"].Spec.StorageClassName = "", ptr("nobody")
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := outlineOf(t, testClasses{}, change)
			if err != nil || len(out.Mounts) != 0 || !slices.Equal(out.Unknown, []string{"data"}) {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}

func TestOutlineSaysWhatIsWrong(t *testing.T) {
	_, err := outlineOf(t, testClasses{}, func(c *cluster) {
		c.volumes["pv-data"].Spec.CSI.VolumeAttributes = map[string]string{"juicefs/mount-cpu-limit": "many"}
	})
	var e *Error
	if !errors.As(err, &e) || e.Transient || !strings.Contains(err.Error(), "juicefs/mount-cpu-limit") {
		t.Errorf("got %v", err)
	}
	_, err = outlineOf(t, testClasses{}, func(c *cluster) { c.pod.Spec.HostUsers = ptr(false) })
	if !errors.As(err, &e) || e.Reason != ReasonPodUnsupported {
		t.Errorf("got %v", err)
	}
}
