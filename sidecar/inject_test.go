package sidecar

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
)

func prepared(t *testing.T) (*corev1.Pod, []Mount) {
	t.Helper()
	c := load(t, readFile(t, "testdata/static.in.yaml"))
	mounts, err := resolver(t, c).Resolve(t.Context(), c.pod)
	if err != nil {
		t.Fatal(err)
	}
	return c.pod, mounts
}

func TestInjectRefusesCollisions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"container", func(p *corev1.Pod) { p.Spec.Containers[0].Name = "sidemount-data" }, "a container named sidemount-data"},
		{"init container", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "sidemount-data"}}
		}, "a container named sidemount-data"},
		{"ephemeral container", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "sidemount-data"}}}
		}, "a container named sidemount-data"},
		{"agent volume", func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "sidemount-bin"})
		}, "a volume named sidemount-bin"},
		{"session volume", func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "sidemount-session-data"})
		}, "a volume named sidemount-session-data"},
		{"annotation alone", func(p *corev1.Pod) {
			p.Annotations = map[string]string{InjectedAnnotation: "data"}
			p.Spec.InitContainers = []corev1.Container{{Name: "sidemount-data", Image: "evil"}}
		}, "a container named sidemount-data"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod, mounts := prepared(t)
			tc.change(pod)
			_, err := Inject(pod, mounts, testDirs)
			if !errors.Is(err, ErrCollision) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestInjectNeedsItsOptions(t *testing.T) {
	pod, mounts := prepared(t)
	if _, err := Inject(pod, mounts, InjectOptions{}); err == nil {
		t.Error("no directories: no error")
	}
}

func TestInjectNeedsTheVolume(t *testing.T) {
	pod, mounts := prepared(t)
	mounts[0].Volume.Name = "other"
	if _, err := Inject(pod, mounts, testDirs); err == nil {
		t.Error("unknown volume: no error")
	}
}

func TestInjectOverridesEveryPodSetting(t *testing.T) {
	pod, mounts := prepared(t)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: ptr(int64(0)), RunAsGroup: ptr(int64(0)), RunAsNonRoot: ptr(false),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
	}
	out, err := Inject(pod, mounts, testDirs)
	if err != nil {
		t.Fatal(err)
	}
	sc := out.Spec.InitContainers[0].SecurityContext
	if *sc.RunAsUser != DefaultUID || *sc.RunAsGroup != DefaultGID || !*sc.RunAsNonRoot || *sc.AllowPrivilegeEscalation || *sc.Privileged ||
		sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || len(sc.Capabilities.Add) != 0 || sc.AppArmorProfile != nil {
		t.Errorf("got %+v", sc)
	}
}

func TestInjectForRoot(t *testing.T) {
	pod, mounts := prepared(t)
	mounts[0].UID, mounts[0].GID = 0, 0
	out, err := Inject(pod, mounts, testDirs)
	if err != nil {
		t.Fatal(err)
	}
	if sc := out.Spec.InitContainers[0].SecurityContext; *sc.RunAsNonRoot || *sc.RunAsUser != 0 || sc.Capabilities.Drop[0] != "ALL" {
		t.Errorf("got %+v", sc)
	}
}

func TestInjectSharesNothingWithTheMounts(t *testing.T) {
	pod, mounts := prepared(t)
	out, err := Inject(pod, mounts, testDirs)
	if err != nil {
		t.Fatal(err)
	}
	delete(out.Spec.InitContainers[0].Resources.Limits, corev1.ResourceCPU)
	*out.Spec.InitContainers[0].SecurityContext.RunAsUser = 0
	if _, ok := mounts[0].Resources.Limits[corev1.ResourceCPU]; !ok || mounts[0].UID != DefaultUID {
		t.Error("a change of the pod has changed the mount")
	}
}

func TestSessionID(t *testing.T) {
	const uid = "7d1c4ffc-6e3f-4a0b-9a39-d4c8d0b7f0aa"
	long := strings.Repeat("v", 63)
	seen := map[mount.SessionID]string{}
	for _, key := range [][2]string{{uid, "data"}, {uid, "data-2"}, {uid, long}, {uid, long[:62] + "w"}, {"other", "data"}, {uid, strings.Repeat("v", 19) + "-x"}} {
		id := SessionID(types.UID(key[0]), key[1])
		if len(id) > 63 || strings.Trim(string(id), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(string(id), "-") {
			t.Errorf("%v: malformed id %s", key, id)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%v and %s have the same id", key, other)
		}
		seen[id] = key[1]
	}
	// The value is kept on disk between versions of the node: it must never change.
	if got := SessionID(uid, "data"); got != "data-25bd87f2122f74cf0cc5" {
		t.Errorf("got %s", got)
	}
}

func TestContainerName(t *testing.T) {
	for _, tc := range []struct{ volume, want string }{
		{"data", "sidemount-data"},
		{strings.Repeat("v", 53), "sidemount-" + strings.Repeat("v", 53)},
	} {
		if got := ContainerName(tc.volume); got != tc.want {
			t.Errorf("%s: got %s", tc.volume, got)
		}
	}
	a, b := ContainerName(strings.Repeat("v", 54)), ContainerName(strings.Repeat("v", 55))
	if a == b || len(a) > 63 || len(b) > 63 {
		t.Errorf("got %s and %s", a, b)
	}
}
