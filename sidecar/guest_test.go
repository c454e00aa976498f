package sidecar

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func testGuest() *Guest {
	return &Guest{
		Image: "ghcr.io/sidemount/sidemount:v0.1.0", Servers: []string{"10.96.0.7:443", "sidemount-webhook.sidemount.svc:443"},
		ServerName: "sidemount-webhook.sidemount.svc", CA: "-----BEGIN CERTIFICATE-----\n", Audience: "volumes.sidemount.io",
	}
}

// TestGuestGolden outlines and injects pods that bring their own broker.
func TestGuestGolden(t *testing.T) {
	for _, name := range []string{"static", "ephemeral", "ten-volumes", "security", "read-only-many", "inline", "one-claim-twice"} {
		t.Run(name, func(t *testing.T) {
			c := load(t, readFile(t, "testdata/"+name+".in.yaml"))
			classes := testClasses{"sidemount": {ObjectMeta: metav1.ObjectMeta{Name: "sidemount"}, Provisioner: DefaultDriver}}
			r, err := NewResolver(Options{Objects: c, Drivers: []string{DefaultDriver, "csi.juicefs.com"}, Version: "v0.1.0", Classes: classes})
			if err != nil {
				t.Fatal(err)
			}
			outlined, err := r.Outline(t.Context(), c.pod)
			if err != nil {
				t.Fatal(err)
			}
			pod, err := Inject(c.pod, outlined.Mounts, InjectOptions{Guest: testGuest()})
			if err != nil {
				t.Fatal(err)
			}
			again, err := Inject(pod, outlined.Mounts, InjectOptions{Guest: testGuest()})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(pod, again); diff != "" {
				t.Errorf("the second injection changed the pod: %s", diff)
			}
			if diff := cmp.Diff(pod, Reinject(pod)); diff != "" {
				t.Errorf("nothing was added, and the pod was changed: %s", diff)
			}
			sound(t, pod)
			untouched(t, c.pod, pod)
			got, err := yaml.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			noSecrets(t, c, got)
			out := filepath.Join("testdata", "guest", name+".out.yaml")
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

// untouched: the scheduler must see the pod's own volumes as they are, and no container may mount one of ours any more.
func untouched(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	for _, v := range before.Spec.Volumes {
		if !slices.ContainsFunc(after.Spec.Volumes, func(w corev1.Volume) bool { return cmp.Equal(v, w) }) {
			t.Errorf("volume %s was changed", v.Name)
		}
	}
	ours := GuestVolumes(after)
	eachMounts(after, func(container string, mounts []corev1.VolumeMount) {
		for _, m := range mounts {
			if slices.Contains(ours, m.Name) {
				t.Errorf("container %s mounts %s as it is", container, m.Name)
			}
		}
	})
}

func guested(t *testing.T) *corev1.Pod {
	t.Helper()
	pod, mounts := prepared(t)
	out, err := Inject(pod, mounts, InjectOptions{Guest: testGuest()})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReinjectTakesInWhatCameLater(t *testing.T) {
	pod := guested(t)
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name: "late", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/x", SubPath: "a"}},
	})
	pod.Spec.InitContainers = append([]corev1.Container{{
		Name: "early", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/x"}},
	}}, pod.Spec.InitContainers...)
	out := Reinject(pod)
	if got := out.Spec.Containers[1].VolumeMounts[0]; got.Name != mountsVolume || got.SubPath != "data/a" {
		t.Errorf("a container that came later mounts %+v", got)
	}
	var order []string
	for _, c := range out.Spec.InitContainers {
		order = append(order, c.Name)
	}
	if got := strings.Join(order, " "); got != "sidemount sidemount-data early" {
		t.Errorf("order of init containers: %s", got)
	}
}

func TestReinjectLeavesOthersFirstWhoDoNotNeedUs(t *testing.T) {
	pod := guested(t)
	pod.Spec.InitContainers = append([]corev1.Container{{Name: "mesh"}}, pod.Spec.InitContainers...)
	if out := Reinject(pod); out.Spec.InitContainers[0].Name != "mesh" {
		t.Error("a container that does not need the volume was moved")
	}
}

func TestGuestVolumesNeedsMoreThanAName(t *testing.T) {
	pod := guested(t)
	if got := GuestVolumes(pod); !slices.Equal(got, []string{"data"}) {
		t.Errorf("got %v", got)
	}
	pod.Spec.InitContainers[0].Command[1] = "run"
	if got := GuestVolumes(pod); got != nil {
		t.Errorf("got %v of a container with another command", got)
	}
}

func TestGuestRefusesCollisions(t *testing.T) {
	for _, volume := range []string{runVolume, mountsVolume, tokenVolume, agentVolume} {
		pod, mounts := prepared(t)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume})
		if _, err := Inject(pod, mounts, InjectOptions{Guest: testGuest()}); !errors.Is(err, ErrCollision) {
			t.Errorf("%s: got %v", volume, err)
		}
	}
	pod, mounts := prepared(t)
	pod.Spec.Containers[0].Name = BrokerContainer
	if _, err := Inject(pod, mounts, InjectOptions{Guest: testGuest()}); !errors.Is(err, ErrCollision) {
		t.Errorf("got %v", err)
	}
}

func TestGuestNeedsItsOptions(t *testing.T) {
	pod, mounts := prepared(t)
	for i, spoil := range []func(*Guest){
		func(g *Guest) { g.Image = "" }, func(g *Guest) { g.Servers = nil }, func(g *Guest) { g.ServerName = "" },
		func(g *Guest) { g.CA = "" }, func(g *Guest) { g.Audience = "" },
	} {
		g := testGuest()
		spoil(g)
		if _, err := Inject(pod, mounts, InjectOptions{Guest: g}); err == nil {
			t.Errorf("%d: no error", i)
		}
	}
}
