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

// InjectOptions are the directories of the node, Guest for a node that has none of ours, or Driver for one with our CSI driver. All paths are
// absolute and on the host.
type InjectOptions struct {
	// AgentDir holds the agent's executable; it is mounted read-only into every sidecar. Required without Guest and Driver.
	AgentDir string
	// SessionDir is the directory of the session's socket, by the volume's name in the pod. Required without Guest and Driver.
	SessionDir func(volume string) string
	// TargetDir is the mount point of the session, by the volume's name in the pod. Required without Guest and Driver.
	TargetDir func(volume string) string
	// Guest makes the pod bring its own broker, for nodes on which nothing of ours runs. nil: the node has a broker.
	Guest *Guest
	// Driver is the CSI driver of the node that hands the sessions over, in inline volumes. "": there is none.
	Driver string
}

func (o InjectOptions) check() error {
	if o.Guest != nil {
		return o.Guest.check()
	}
	if o.Driver != "" {
		return nil
	}
	if o.AgentDir == "" || o.SessionDir == nil || o.TargetDir == nil {
		return errors.New("inject needs the directories of agent, sessions and targets")
	}
	return nil
}

// place is where sidecars find the agent and their sessions, and where the application finds the volumes.
type place interface {
	// names are those of containers and volumes that the place needs for these mounts, besides what every sidecar needs.
	names(mounts []Mount) (containers, volumes []string)
	// furnish adds what all sidecars of the pod share and returns the containers that come before them.
	furnish(mounts []Mount) []corev1.Container
	// session is where a sidecar finds its session's socket.
	session(m Mount) Place
	// redirect shows the session to the containers that mount the volume.
	redirect(m Mount) error
	// redirected tells whether no container of the pod would see anything but the session.
	redirected(m Mount) bool
	// finish changes sidecars when all of them are there.
	finish(sidecars []corev1.Container)
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
// The error is ErrCollision if the pod already uses a name that a sidecar needs. With Guest and Driver pods are refused that name the
// sidecars' servers themselves (hostAliases, name servers of their own); see Guest.Audit.
func Inject(pod *corev1.Pod, mounts []Mount, o InjectOptions) (*corev1.Pod, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	out := pod.DeepCopy()
	i := newInjector(out, o)
	if len(mounts) == 0 || i.done(mounts) {
		return out, nil
	}
	if err := o.admitNames(pod); err != nil {
		return nil, err
	}
	if err := i.collides(mounts); err != nil {
		return nil, err
	}
	sidecars := i.furnish(mounts)
	names := make([]string, 0, len(mounts))
	for _, m := range mounts {
		if err := i.redirect(m); err != nil {
			return nil, err
		}
		sidecars = append(sidecars, i.sidecar(m))
		names = append(names, m.Volume.Name)
	}
	i.finish(sidecars)
	for _, c := range sidecars {
		i.makeRoom(c.Resources)
	}
	out.Spec.InitContainers = append(sidecars, out.Spec.InitContainers...)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[InjectedAnnotation] = strings.Join(names, ",")
	return out, nil
}

// injector changes a copy of a pod.
type injector struct {
	place
	pod *corev1.Pod
}

func newInjector(pod *corev1.Pod, o InjectOptions) injector {
	if o.Guest != nil {
		return injector{guestPlace{pod, o.Guest}, pod}
	}
	if o.Driver != "" {
		return injector{handedPlace{pod, o.Driver}, pod}
	}
	return injector{nodePlace{pod, o}, pod}
}

// done is true if the pod has all sidecars already. The annotation alone proves nothing, as the pod's author can set it:
// the volumes must be redirected as well, or the pod would run without the file system.
func (i injector) done(mounts []Mount) bool {
	if _, ok := i.pod.Annotations[InjectedAnnotation]; !ok {
		return false
	}
	for _, m := range mounts {
		isSidecar := func(c corev1.Container) bool { return c.Name == GenerationName(m.Volume.Name, m.Generation) }
		if !slices.ContainsFunc(i.pod.Spec.InitContainers, isSidecar) || !i.redirected(m) {
			return false
		}
	}
	return true
}

func addVolume(pod *corev1.Pod, v ...corev1.Volume) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, v...)
}

// sidecar adds the volumes of a client to the pod and returns its container.
func (i injector) sidecar(m Mount) corev1.Container {
	c, volumes := i.build(m)
	addVolume(i.pod, volumes...)
	return c
}

// build returns a client's container as a native sidecar, and its volumes.
func (i injector) build(m Mount) (corev1.Container, []corev1.Volume) {
	// AppArmor is asked for only where the pod proves that the node has it.
	security := i.pod.Spec.SecurityContext
	p := i.session(m)
	p.AppArmor = security != nil && security.AppArmorProfile != nil
	c, volumes := Container(m, p)
	always := corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c, volumes
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
	containers, volumes := i.names(mounts)
	for _, m := range mounts {
		containers = append(containers, GenerationName(m.Volume.Name, m.Generation))
	}
	for _, name := range containers {
		if taken[name] {
			return collision(i.pod, "container", name)
		}
		taken[name] = true
	}
	needed := map[string]bool{agentVolume: true}
	for _, name := range volumes {
		needed[name] = true
	}
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
