package sidecar

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

// Succeeds tells why next cannot take over from the client that serves a mount, nil if it can: what the mount itself is made of, and which part of which file system it
// shows, cannot change below an application.
func (m Mount) Succeeds(now Mount) error {
	subdir := func(m Mount) string {
		value, _ := mountOptions(m.Volume.Options).last(optSubdir)
		return value
	}
	var what string
	switch {
	case m.Volume.ID != now.Volume.ID:
		what = "volume handle"
	case m.Volume.Client != now.Volume.Client:
		what = "kind of client"
	case m.Volume.ReadOnly != now.Volume.ReadOnly:
		what = "access (read-only or not)"
	case m.UID != now.UID || m.GID != now.GID:
		what = "user or group"
	case subdir(m) != subdir(now):
		what = "subdirectory"
	case m.Volume.Config[configPath] != now.Volume.Config[configPath]:
		what = "directory"
	default:
		return nil
	}
	return fmt.Errorf("the volume's %s has changed, which needs a new pod", what)
}

// InjectNext adds the sidecar that shall take a volume over beside the one that Inject has put there, with the same directories. The pod is changed. The error is
// ErrCollision if a name is taken, also if next needs other directories than the present sidecar has.
func InjectNext(pod *corev1.Pod, next Mount, o InjectOptions) error {
	i := newInjector(pod, o)
	name := GenerationName(next.Volume.Name, next.Generation)
	taken := func(c corev1.Container) bool { return c.Name == name }
	if slices.ContainsFunc(pod.Spec.InitContainers, taken) || slices.ContainsFunc(pod.Spec.Containers, taken) {
		return collision(pod, "container", name)
	}
	at := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == sessionVolume(next.Volume.Name) })
	})
	if at < 0 {
		return fmt.Errorf("%s has no sidecar for volume %s that another one could follow", podObject(pod), next.Volume.Name)
	}
	c, volumes := i.build(next)
	for _, v := range volumes {
		have := slices.IndexFunc(pod.Spec.Volumes, func(have corev1.Volume) bool { return have.Name == v.Name })
		switch {
		case have < 0:
			pod.Spec.Volumes = append(pod.Spec.Volumes, v)
		case !apiequality.Semantic.DeepEqual(pod.Spec.Volumes[have], v):
			return fmt.Errorf("the directories of volume %s have changed, which needs a new pod: %w", next.Volume.Name, ErrCollision)
		}
	}
	i.makeRoom(c.Resources)
	pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, at+1, c)
	return nil
}
