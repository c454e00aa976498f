package sidecar

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// handedOver is a pod whose sessions a CSI driver hands over.
func handedOver(t *testing.T) (*corev1.Pod, []Mount) {
	t.Helper()
	pod, mounts := prepared(t)
	out, err := Inject(pod, mounts, InjectOptions{Driver: DefaultDriver})
	if err != nil {
		t.Fatal(err)
	}
	return out, mounts
}

func TestHandedPodNeedsNothingOfTheHost(t *testing.T) {
	pod, mounts := handedOver(t)
	before, _ := prepared(t)
	for i, v := range pod.Spec.Volumes {
		if i < len(before.Spec.Volumes) {
			if diff := cmp.Diff(before.Spec.Volumes[i], v); diff != "" {
				t.Errorf("a volume of the pod's own was changed: %s", diff)
			}
		} else if v.CSI == nil && v.EmptyDir == nil && !slices.ContainsFunc(mounts, func(m Mount) bool { return len(m.HostPaths) > 0 }) {
			t.Errorf("volume %s is not for everybody", v.Name)
		}
	}
	for _, c := range pod.Spec.InitContainers[:len(mounts)] {
		s := c.SecurityContext
		if *s.Privileged || *s.AllowPrivilegeEscalation || !*s.RunAsNonRoot || !slices.Contains(s.Capabilities.Drop, "ALL") {
			t.Errorf("container %s: %+v", c.Name, s)
		}
		if c.StartupProbe == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Errorf("container %s does not keep the application waiting", c.Name)
		}
	}
	again, err := Inject(pod, mounts, InjectOptions{Driver: DefaultDriver})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pod, again); diff != "" {
		t.Errorf("the second injection changed the pod: %s", diff)
	}
	if got := HandedVolumes(pod, "another.driver"); got != nil {
		t.Errorf("volumes of another driver: %v", got)
	}
}

func TestReinjectHandedServesContainersThatCameLater(t *testing.T) {
	pod, mounts := handedOver(t)
	name := mounts[0].Volume.Name
	late := corev1.Container{Name: "late", VolumeMounts: []corev1.VolumeMount{{Name: name, MountPath: "/late"}}}
	pod.Spec.InitContainers = append([]corev1.Container{late}, pod.Spec.InitContainers...)
	out := ReinjectHanded(pod, DefaultDriver)
	at := slices.IndexFunc(out.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == "late" })
	if at < len(mounts) {
		t.Errorf("the container is at place %d, before the sidecars", at)
	}
	if p := out.Spec.InitContainers[at].VolumeMounts[0].MountPropagation; p == nil || *p != corev1.MountPropagationHostToContainer {
		t.Errorf("propagation %v", p)
	}
}

func TestAuditHanded(t *testing.T) {
	client := func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[0] }
	app := func(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] }
	volume := func(p *corev1.Pod, name string) *corev1.Volume {
		return &p.Spec.Volumes[slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })]
	}
	pod, mounts := handedOver(t)
	session := sessionVolume(mounts[0].Volume.Name)
	if err := AuditHanded(pod, mounts[0], DefaultDriver); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*corev1.Pod){
		"another image":     func(p *corev1.Pod) { client(p).Image = "evil" },
		"another client":    func(p *corev1.Pod) { client(p).Command[3] = "/bin/sh" },
		"arguments":         func(p *corev1.Pod) { client(p).Args = []string{"-c"} },
		"a hook":            func(p *corev1.Pod) { client(p).Lifecycle = &corev1.Lifecycle{} },
		"a library":         func(p *corev1.Pod) { client(p).Env = []corev1.EnvVar{{Name: "LD_PRELOAD", Value: "/x"}} },
		"a probe that runs": func(p *corev1.Pod) { client(p).LivenessProbe = &corev1.Probe{} },
		"another probe":     func(p *corev1.Pod) { client(p).StartupProbe.Exec.Command = []string{"/tmp/x"} },
		"no native sidecar": func(p *corev1.Pod) { client(p).RestartPolicy = nil },
		"a mount over it":   func(p *corev1.Pod) { add(client(p), "x", "/usr/local/bin") },
		"a link's mount":    func(p *corev1.Pod) { add(client(p), "x", "/var/run/sidemount/session") },
		"no sidecar":        func(p *corev1.Pod) { client(p).Name = "x" },
		"an application":    func(p *corev1.Pod) { add(app(p), session, "/t") },
		"an agent of others": func(p *corev1.Pod) {
			volume(p, agentVolume).VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		},
		"another way to it": func(p *corev1.Pod) {
			v := *volume(p, session).DeepCopy()
			v.Name = "mine"
			p.Spec.Volumes = append(p.Spec.Volumes, v)
		},
		"another's session": func(p *corev1.Pod) { m := &client(p).VolumeMounts[1]; m.Name = "x" },
		"a debugger's socket": func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", VolumeMounts: []corev1.VolumeMount{{Name: session, MountPath: "/t"}},
			}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed := pod.DeepCopy()
			change(changed)
			if err := AuditHanded(changed, mounts[0], DefaultDriver); !errors.Is(err, ErrAltered) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAuditHandedRefusesServersOfThePodsAuthor(t *testing.T) {
	pod, mounts := handedOver(t)
	for name, change := range namings(func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[0] }) {
		t.Run(name, func(t *testing.T) {
			changed := pod.DeepCopy()
			change(changed)
			if err := AuditHanded(changed, mounts[0], DefaultDriver); !errors.Is(err, ErrAltered) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDistinctLeavesOneSessionForAClaim(t *testing.T) {
	mounts := []Mount{{Claim: "a"}, {Claim: "b"}, {Claim: "a"}, {}, {}}
	if got := Distinct(mounts); len(got) != 4 {
		t.Errorf("got %v", got)
	}
}
