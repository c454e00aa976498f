package sidecar

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// InjectedAnnotation on a pod lists the volumes that its sidecars serve, separated by commas.
const InjectedAnnotation = "sidemount.io/injected"

// InjectOptions are the directories of the node. All paths are absolute and on the host.
type InjectOptions struct {
	// AgentDir holds the agent's executable; it is mounted read-only into every sidecar. Required.
	AgentDir string
	// SessionDir is the directory of the session's socket, by the volume's name in the pod. Required.
	SessionDir func(volume string) string
	// TargetDir is the mount point of the session, by the volume's name in the pod. Required.
	TargetDir func(volume string) string
}

// Inject returns a copy of the pod in which every Mount has its sidecar: a native sidecar before all other init containers,
// in the order of mounts. The volume itself becomes the mount point on the host, seen with HostToContainer propagation by
// the containers that mount it, so that a mount that is made again reaches them.
//
// The copy carries InjectedAnnotation; injecting it again returns it as it is. The pod's own settings do not reach the
// sidecar, except those that Kubernetes has for the whole pod only: host namespaces, a shared process namespace, sysctls,
// SELinux options and supplemental groups. The pod's grace period is left as it is: the client flushes in what the
// application's containers leave of it.
//
// The scheduler has not seen the sidecars' requests when a node injects; see the package's comment.
//
// The error is ErrCollision if the pod already uses a name that a sidecar needs.
func Inject(pod *corev1.Pod, mounts []Mount, o InjectOptions) (*corev1.Pod, error) {
	if o.AgentDir == "" || o.SessionDir == nil || o.TargetDir == nil {
		return nil, errors.New("inject needs the directories of agent, sessions and targets")
	}
	out := pod.DeepCopy()
	if len(mounts) == 0 || injected(pod, mounts) {
		return out, nil
	}
	i := injector{pod: out, options: o}
	if err := i.collides(mounts); err != nil {
		return nil, err
	}
	i.volume(AgentVolume(o.AgentDir))
	sidecars := make([]corev1.Container, 0, len(mounts))
	names := make([]string, 0, len(mounts))
	for _, m := range mounts {
		if err := i.redirect(m); err != nil {
			return nil, err
		}
		sidecars = append(sidecars, i.sidecar(m))
		i.makeRoom(m.Resources)
		names = append(names, m.Volume.Name)
	}
	out.Spec.InitContainers = append(sidecars, out.Spec.InitContainers...)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[InjectedAnnotation] = strings.Join(names, ",")
	return out, nil
}

// injected is true if the pod has all sidecars already. The annotation alone proves nothing, as the pod's author can set it:
// the volumes must be redirected as well, or the pod would run without the file system.
func injected(pod *corev1.Pod, mounts []Mount) bool {
	if _, ok := pod.Annotations[InjectedAnnotation]; !ok {
		return false
	}
	for _, m := range mounts {
		isSidecar := func(c corev1.Container) bool { return c.Name == ContainerName(m.Volume.Name) }
		isTarget := func(v corev1.Volume) bool { return v.Name == m.Volume.Name && v.HostPath != nil }
		if !slices.ContainsFunc(pod.Spec.InitContainers, isSidecar) || !slices.ContainsFunc(pod.Spec.Volumes, isTarget) {
			return false
		}
	}
	return true
}

// injector changes a copy of a pod.
type injector struct {
	pod     *corev1.Pod
	options InjectOptions
}

func (i injector) volume(v ...corev1.Volume) { i.pod.Spec.Volumes = append(i.pod.Spec.Volumes, v...) }

// sidecar adds the volumes of a client to the pod and returns its container as a native sidecar.
func (i injector) sidecar(m Mount) corev1.Container {
	// AppArmor is asked for only where the pod proves that the node has it.
	security := i.pod.Spec.SecurityContext
	c, volumes := Container(m, Place{
		SessionDir: i.options.SessionDir(m.Volume.Name),
		AppArmor:   security != nil && security.AppArmorProfile != nil,
	})
	i.volume(volumes...)
	always := corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c
}

// collides finds names of the pod that its sidecars need.
func (i injector) collides(mounts []Mount) error {
	taken := map[string]bool{}
	for _, c := range slices.Concat(i.pod.Spec.InitContainers, i.pod.Spec.Containers) {
		taken[c.Name] = true
	}
	for _, c := range i.pod.Spec.EphemeralContainers {
		taken[c.Name] = true
	}
	for _, m := range mounts {
		if taken[ContainerName(m.Volume.Name)] {
			return collision(i.pod, "container", ContainerName(m.Volume.Name))
		}
		taken[ContainerName(m.Volume.Name)] = true
	}
	needed := map[string]bool{agentVolume: true}
	for _, m := range mounts {
		for _, name := range volumeNames(m) {
			needed[name] = true
		}
	}
	for _, v := range i.pod.Spec.Volumes {
		if needed[v.Name] {
			return collision(i.pod, "volume", v.Name)
		}
	}
	return nil
}

func collision(pod *corev1.Pod, kind, name string) error {
	return &Error{
		Reason: ReasonPodUnsupported, Object: podObject(pod), Err: ErrCollision,
		Message: fmt.Sprintf("has a %s named %s, which its sidecar needs", kind, name),
		Cure:    "rename the " + kind,
	}
}

// makeRoom adds the sidecar to resources that are set for the pod as a whole, so that the application keeps its own. A sidecar
// without a limit counts with its request there.
func (i injector) makeRoom(r corev1.ResourceRequirements) {
	whole := i.pod.Spec.Resources
	if whole == nil {
		return
	}
	for name, request := range r.Requests {
		limit, limited := r.Limits[name]
		if !limited {
			limit = request
		}
		increase(whole.Requests, name, request)
		increase(whole.Limits, name, limit)
	}
}

func increase(list corev1.ResourceList, name corev1.ResourceName, by resource.Quantity) {
	if q, ok := list[name]; ok {
		q.Add(by)
		list[name] = q
	}
}

// redirect makes the pod's volume the mount point of the session, for every container that mounts it.
func (i injector) redirect(m Mount) error {
	at := slices.IndexFunc(i.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Volume.Name })
	if at < 0 {
		return fmt.Errorf("inject %s: %s has no such volume", m.Volume.Name, podObject(i.pod))
	}
	// No type is asked for: to check it somebody would have to stat a FUSE file system, and might wait for ever.
	i.pod.Spec.Volumes[at].VolumeSource = hostPath(i.options.TargetDir(m.Volume.Name), corev1.HostPathUnset)
	for n := range i.pod.Spec.InitContainers {
		follow(i.pod.Spec.InitContainers[n].VolumeMounts, m)
	}
	for n := range i.pod.Spec.Containers {
		follow(i.pod.Spec.Containers[n].VolumeMounts, m)
	}
	for n := range i.pod.Spec.EphemeralContainers {
		follow(i.pod.Spec.EphemeralContainers[n].VolumeMounts, m)
	}
	return nil
}

// follow makes a container see later mounts at the target. A read-only volume is mounted read-only even where the
// container does not say so.
func follow(mounts []corev1.VolumeMount, m Mount) {
	for n := range mounts {
		if mounts[n].Name != m.Volume.Name {
			continue
		}
		mounts[n].ReadOnly = mounts[n].ReadOnly || m.Volume.ReadOnly
		if p := mounts[n].MountPropagation; p == nil || *p == corev1.MountPropagationNone {
			propagation := corev1.MountPropagationHostToContainer
			mounts[n].MountPropagation = &propagation
		}
	}
}

func hostPath(dir string, kind corev1.HostPathType) corev1.VolumeSource {
	src := &corev1.HostPathVolumeSource{Path: dir}
	if kind != corev1.HostPathUnset {
		src.Type = &kind
	}
	return corev1.VolumeSource{HostPath: src}
}
