package sidecar

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ErrAltered means that a pod's sidecars are not what Inject makes.
var ErrAltered = errors.New("the pod's sidecars were altered")

// credentials is where Kubernetes and other webhooks put tokens into every container.
const credentials = "/var/run/secrets"

// Audit tells whether the sidecars of a pod are those that Inject makes for these mounts. Otherwise whoever may create pods could
// have a program of his own show the broker's token, or take a client's place, and read the volume's Secret. What others add to every
// container is let pass where it cannot change what runs. knownCA tells whether a text in PEM has none but our authorities.
//
// It does not protect from those who may run commands in a pod's containers, make containers that see all processes, or watch or change what
// passes the pod's network.
func (g *Guest) Audit(pod *corev1.Pod, mounts []Mount, knownCA func(pem string) bool) error {
	place := guestPlace{pod.DeepCopy(), g}
	broker := place.broker(mounts)
	expected := map[string]corev1.Container{broker.Name: broker}
	sidecars := []corev1.Container{}
	for _, m := range mounts {
		c, _ := Container(m, place.session(m))
		sidecars = append(sidecars, c)
	}
	if len(sidecars) > 0 {
		place.finish(sidecars)
	}
	for _, c := range sidecars {
		expected[c.Name] = c
	}
	found := 0
	for _, c := range pod.Spec.InitContainers {
		want, ok := expected[c.Name]
		if !ok {
			continue
		}
		found++
		if why := altered(want, c, knownCA); why != "" {
			return fmt.Errorf("container %s has %s: %w", c.Name, why, ErrAltered)
		}
	}
	if found != len(expected) {
		return fmt.Errorf("%d of %d containers are there: %w", found, len(expected), ErrAltered)
	}
	if err := ownDirectories(pod); err != nil {
		return err
	}
	if err := auditNames(pod); err != nil {
		return err
	}
	return g.apart(pod, expected)
}

// ownDirectories holds the volumes of the agent, of the sockets and of the mounts to be the pod's own directories: in one that others can reach, they could
// exchange the agent's program or talk to the sockets.
func ownDirectories(pod *corev1.Pod) error {
	for _, name := range []string{agentVolume, runVolume, mountsVolume} {
		at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		if at < 0 || pod.Spec.Volumes[at].EmptyDir == nil {
			return fmt.Errorf("volume %s is no emptyDir: %w", name, ErrAltered)
		}
	}
	return nil
}

// AuditHanded is Audit for one volume of a pod whose session the node's CSI driver hands over: who gets the session's socket gets the volume's
// Secret.
func AuditHanded(pod *corev1.Pod, m Mount, driver string) error {
	place := handedPlace{pod, driver}
	want, _ := Container(m, place.session(m))
	sidecars := []corev1.Container{want}
	place.finish(sidecars)
	at := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == want.Name })
	if at < 0 {
		return fmt.Errorf("container %s is not there: %w", want.Name, ErrAltered)
	}
	got := pod.Spec.InitContainers[at]
	if why := altered(sidecars[0], got, func(string) bool { return false }); why != "" {
		return fmt.Errorf("container %s has %s: %w", want.Name, why, ErrAltered)
	}
	if got.RestartPolicy == nil || *got.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		return fmt.Errorf("container %s is no native sidecar any more, it has lost its restartPolicy: %w", want.Name, ErrAltered)
	}
	if err := auditNames(pod); err != nil {
		return err
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == agentVolume && shows(v, driver, AgentAttribute) == "" {
			return fmt.Errorf("volume %s has a program of others: %w", v.Name, ErrAltered)
		}
		// A second volume with the same session would be another way to it.
		if shows(v, driver, SessionAttribute) == m.Volume.Name && v.Name != sessionVolume(m.Volume.Name) {
			return fmt.Errorf("volume %s shows the session of another: %w", v.Name, ErrAltered)
		}
	}
	var err error
	eachMounts(pod, func(container string, mounts []corev1.VolumeMount) {
		if container != want.Name && slices.ContainsFunc(mounts, func(v corev1.VolumeMount) bool { return v.Name == sessionVolume(m.Volume.Name) }) {
			err = fmt.Errorf("container %s mounts %s: %w", container, sessionVolume(m.Volume.Name), ErrAltered)
		}
	})
	return err
}

// apart finds containers that see what is the sidecars' only.
func (g *Guest) apart(pod *corev1.Pod, sidecars map[string]corev1.Container) error {
	private := []string{agentVolume, runVolume}
	for _, v := range pod.Spec.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == g.Audience
		}) {
			private = append(private, v.Name)
		}
	}
	var err error
	eachMounts(pod, func(container string, mounts []corev1.VolumeMount) {
		if _, ok := sidecars[container]; ok {
			return
		}
		for _, m := range mounts {
			if slices.Contains(private, m.Name) {
				err = fmt.Errorf("container %s mounts %s: %w", container, m.Name, ErrAltered)
			}
		}
	})
	return err
}

// altered says what a container has that it was not made with.
func altered(want, got corev1.Container, knownCA func(string) bool) string {
	switch {
	case repository(want.Image) != repository(got.Image):
		return "another image"
	case !slices.Equal(withoutServers(want.Command), withoutServers(got.Command)) || len(got.Args) > 0:
		return "another command"
	case got.Lifecycle != nil || len(got.EnvFrom) > 0 || len(got.VolumeDevices) > 0 || got.WorkingDir != "":
		return "hooks, devices or environment of others"
	}
	if why := alteredProbes(want, got); why != "" {
		return why
	}
	for _, e := range got.Env {
		if e.Name == GuestCA && !knownCA(e.Value) || steers(e.Name) {
			return "variable " + e.Name
		}
	}
	if len(want.Env) > 0 && !slices.ContainsFunc(got.Env, func(e corev1.EnvVar) bool { return e.Name == GuestCA }) {
		return "no authorities"
	}
	return strayMounts(want.VolumeMounts, got.VolumeMounts)
}

// alteredProbes finds commands that a kubelet would run in the container.
func alteredProbes(want, got corev1.Container) string {
	if got.LivenessProbe != nil || got.ReadinessProbe != nil {
		return "probes of others"
	}
	command := func(p *corev1.Probe) []string {
		if p == nil || p.Exec == nil {
			return nil
		}
		return p.Exec.Command
	}
	if !slices.Equal(command(want.StartupProbe), command(got.StartupProbe)) {
		return "another startup probe"
	}
	return ""
}

// strayMounts compares mounts. Caches and directories of the host may differ, because a claim that was unbound at admission may have got
// others than its StorageClass promised; but nothing may lie over what is executed or trusted.
func strayMounts(want, got []corev1.VolumeMount) string {
	essential := func(m corev1.VolumeMount) bool {
		return slices.Contains([]string{agentVolume, runVolume, mountsVolume, tokenVolume}, m.Name) || strings.HasPrefix(m.Name, sessionVolume(""))
	}
	same := func(a, b corev1.VolumeMount) bool {
		return a.Name == b.Name && a.MountPath == b.MountPath && a.SubPath == b.SubPath && b.SubPathExpr == ""
	}
	for _, w := range want {
		if essential(w) && !slices.ContainsFunc(got, func(m corev1.VolumeMount) bool { return same(w, m) }) {
			return "no mount of " + w.Name
		}
	}
	for _, m := range got {
		if slices.ContainsFunc(want, func(w corev1.VolumeMount) bool { return same(w, m) }) {
			continue
		}
		if essential(m) || covers(m.MountPath) {
			return "a mount at " + m.MountPath
		}
	}
	return ""
}

// covers tells whether a mount could hide what a container executes or trusts.
func covers(at string) bool {
	at = strings.TrimSuffix(path.Clean(at), "/") + "/"
	if strings.HasPrefix(at, credentials+"/") {
		return false
	}
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/etc", "/run", "/var/run", "/proc", "/sys", "/dev"} {
		if strings.HasPrefix(at, dir+"/") || strings.HasPrefix(dir+"/", at) {
			return true
		}
	}
	return false
}

// withoutServers leaves out addresses, which change: the name in the certificate and its authorities protect the token.
func withoutServers(argv []string) []string {
	var out []string
	for i := 0; i < len(argv); i++ {
		if argv[i] == "-server" {
			i++
			continue
		}
		out = append(out, argv[i])
	}
	return out
}

// repository is an image without tag and digest: those change with every version.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		image = image[:i]
	}
	return image
}
