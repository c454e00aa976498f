package cri

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestConfigRefuses lists what a container's configuration is refused for and the words in which it is.
func TestConfigRefuses(t *testing.T) {
	yes, no, root := true, false, int64(0)
	strange := corev1.SupplementalGroupsPolicy("Sometimes")
	local := "../../etc/passwd"
	signal := corev1.Signal("SIGNONSENSE")
	nonRoot := &corev1.SecurityContext{RunAsNonRoot: &yes}
	for _, tt := range []struct {
		name string
		spec corev1.PodSpec
		c    corev1.Container
		in   ContainerInput
		want string
	}{
		{name: "root by the pod", c: corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &root}},
			want: "container's runAsUser breaks non-root policy"},
		{name: "root by the image", c: corev1.Container{SecurityContext: nonRoot}, in: ContainerInput{Image: Image{UID: &root}},
			want: "container has runAsNonRoot and image will run as root"},
		{name: "root because the image says nothing", c: corev1.Container{SecurityContext: nonRoot},
			want: "container has runAsNonRoot and image will run as root"},
		{name: "a name could be root", c: corev1.Container{SecurityContext: nonRoot}, in: ContainerInput{Image: Image{Username: "app"}},
			want: "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root"},
		{name: "propagation out of an unprivileged container", in: ContainerInput{Mounts: []Mount{{Name: "v", Propagation: corev1.MountPropagationBidirectional}}},
			want: "only to privileged containers"},
		{name: "propagation unknown", in: ContainerInput{Mounts: []Mount{{Name: "v", Propagation: "Sideways"}}}, want: "invalid MountPropagation"},
		{name: "recursively read-only but writable", in: ContainerInput{Mounts: []Mount{{Name: "v", RecursiveReadOnly: true}}}, want: "read-only mount"},
		{name: "groups policy", spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SupplementalGroupsPolicy: &strange}},
			want: "unsupported supplementalGroupsPolicy: Sometimes"},
		{name: "no user namespaces", spec: corev1.PodSpec{HostUsers: &no}, want: "user namespaces"},
		{name: "seccomp profile outside", c: corev1.Container{SecurityContext: &corev1.SecurityContext{
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &local}}}, want: "localhostProfile"},
		{name: "AppArmor profile without AppArmor", c: corev1.Container{SecurityContext: &corev1.SecurityContext{
			AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}}}, want: "AppArmor is not enabled"},
		{name: "stop signal", c: corev1.Container{Lifecycle: &corev1.Lifecycle{StopSignal: &signal}}, want: `"SIGNONSENSE"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ContainerConfig(&corev1.Pod{Spec: tt.spec}, &tt.c, tt.in)
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrConfig with %q", err, tt.want)
			}
			if strings.Contains(Message(err), ErrConfig.Error()) {
				t.Errorf("the message %q tells the kind of error", Message(err))
			}
		})
	}
}

func TestNonRootAccepts(t *testing.T) {
	yes, uid := true, int64(7)
	c := &corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsNonRoot: &yes}}
	cfg, err := ContainerConfig(&corev1.Pod{}, c, ContainerInput{Image: Image{UID: &uid}})
	if err != nil || cfg.Linux.SecurityContext.RunAsUser.GetValue() != 7 {
		t.Errorf("image of user 7: %v, %v", cfg, err)
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: &uid}}}
	if _, err := ContainerConfig(pod, c, ContainerInput{Image: Image{Username: "root"}}); err != nil {
		t.Errorf("pod of user 7: %v", err)
	}
}

func TestHashChangesWithNameAndImageOnly(t *testing.T) {
	base := corev1.Container{Name: "a", Image: "i"}
	same := corev1.Container{Name: "a", Image: "i", Env: []corev1.EnvVar{{Name: "X"}}, Args: []string{"y"}}
	if HashContainer(&base) != HashContainer(&same) {
		t.Error("the hash depends on what can change in place")
	}
	seen := map[string]bool{HashContainer(&base): true}
	for _, c := range []corev1.Container{{Name: "b", Image: "i"}, {Name: "a", Image: "j"}, {Name: "ai"}, {Image: "ai"}} {
		if h := HashContainer(&c); seen[h] {
			t.Errorf("%+v has the hash of another", c)
		} else {
			seen[h] = true
		}
	}
}

func TestLabelsOfThePodCannotForgeOurs(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u", Labels: map[string]string{NodeLabel: "other", labelPodUID: "other", "x": "y"}},
		Spec:       corev1.PodSpec{NodeName: "mine"},
	}
	got := podLabels(pod)
	if got[NodeLabel] != "mine" || got[labelPodUID] != "u" || got["x"] != "y" || pod.Labels[NodeLabel] != "other" {
		t.Errorf("labels %v", got)
	}
}

func TestStopSignalsRoundTrip(t *testing.T) {
	for name := range runtimeapi.Signal_value {
		if name == runtimeapi.Signal_RUNTIME_DEFAULT.String() {
			continue
		}
		api := fromSignal(runtimeapi.Signal(runtimeapi.Signal_value[name]))
		got, err := stopSignal(&corev1.Container{Lifecycle: &corev1.Lifecycle{StopSignal: &api}})
		if err != nil || int32(got) != runtimeapi.Signal_value[name] {
			t.Errorf("%s → %s → %v, %v", name, api, got, err)
		}
	}
	if got := fromSignal(runtimeapi.Signal_SIGRTMINPLUS1); got != "SIGRTMIN+1" {
		t.Errorf("fromSignal = %q", got)
	}
}
