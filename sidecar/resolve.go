package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/sidemount/sidemount/mount"
)

// DefaultDriver is the CSI driver's name in PersistentVolumes.
const DefaultDriver = "csi.sidemount.io"

// parallel bounds how many volumes of a pod are resolved at the same time; each costs up to three requests in a row.
const parallel = 8

// Objects reads single API objects. Errors are those of the API machinery, so that a missing object can be told apart from
// a silent API server. Implementations may answer from a cache; the resolver does not change what it gets.
type Objects interface {
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Options configure a Resolver.
type Options struct {
	// Objects reads the API server. It must be set.
	Objects Objects
	// Drivers are the names of CSI drivers whose volumes are served. Default: csi.sidemount.io. With csi.juicefs.com among
	// them the volumes of the JuiceFS CSI driver are served as they are.
	Drivers []string
	// Version is the tag of default images. Default: "latest".
	Version string
	// Images replace the default image of a client. A PersistentVolume can still name its own.
	Images map[mount.ClientKind]string
	// Classes reads StorageClasses. Only Outline needs them.
	Classes Classes
}

// Resolver finds out what the volumes of a pod are. It is safe for concurrent use.
type Resolver struct {
	objects Objects
	classes Classes
	drivers []string
	images  map[mount.ClientKind]string
}

// NewResolver checks the options and returns a Resolver.
func NewResolver(o Options) (*Resolver, error) {
	if o.Objects == nil {
		return nil, errors.New("resolver needs objects")
	}
	r := &Resolver{objects: o.Objects, classes: o.Classes, drivers: o.Drivers, images: make(map[mount.ClientKind]string, len(Clients))}
	if len(r.drivers) == 0 {
		r.drivers = []string{DefaultDriver}
	}
	if o.Version == "" {
		o.Version = "latest"
	}
	for kind, client := range Clients {
		r.images[kind] = client.Image
		if client.Image == "" {
			r.images[kind] = client.Repository + ":" + o.Version
		}
	}
	for kind, image := range o.Images {
		if _, ok := Clients[kind]; !ok {
			return nil, fmt.Errorf("image %q: no client %q", image, kind)
		}
		if image != "" {
			r.images[kind] = image
		}
	}
	return r, nil
}

// Resolve returns the Mounts of a pod in the order of its volumes. A volume that no container mounts is left out, as the
// kubelet does. Claims of a driver that is not served are errors: nobody else on this node could serve them.
//
// The error is an *Error for the first volume that cannot be used.
func (r *Resolver) Resolve(ctx context.Context, pod *corev1.Pod) ([]Mount, error) {
	volumes, err := claimed(pod)
	if err != nil {
		return nil, err
	}
	if err := podAllows(pod, volumes); err != nil {
		return nil, err
	}
	mounts := make([]Mount, len(volumes))
	errs := make([]error, len(volumes))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, v := range volumes {
		group.Go(func() error {
			mounts[i], errs[i] = r.ResolveVolume(ctx, pod, v)
			return nil
		})
	}
	_ = group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return mounts, nil
}

// ResolveVolume returns the Mount of one volume of a pod: a claim, a generic ephemeral volume or an inline CSI volume.
// The error is an *Error; its Reason is ReasonForeignDriver if the volume is none of ours.
func (r *Resolver) ResolveVolume(ctx context.Context, pod *corev1.Pod, v corev1.Volume) (Mount, error) {
	src, err := r.source(ctx, pod, v)
	if err != nil {
		return Mount{}, err
	}
	m, err := r.Describe(src)
	if err != nil {
		return Mount{}, err
	}
	m.Warnings = append(m.Warnings, podWarnings(pod, v.Name)...)
	return m, nil
}

func (r *Resolver) source(ctx context.Context, pod *corev1.Pod, v corev1.Volume) (Source, error) {
	switch {
	case v.PersistentVolumeClaim != nil:
		claim := v.PersistentVolumeClaim
		return r.claimSource(ctx, pod, v.Name, claim.ClaimName, claim.ReadOnly, false)
	case v.Ephemeral != nil:
		return r.claimSource(ctx, pod, v.Name, ephemeral.VolumeClaimName(pod, &v), false, true)
	case v.CSI != nil:
		return r.inlineSource(ctx, pod, v)
	}
	return Source{}, &Error{
		Reason: ReasonPodUnsupported, Object: podObject(pod), Field: volumeField(v.Name),
		Message: "has a volume that is neither a claim nor an ephemeral CSI volume",
		Cure:    "name a persistentVolumeClaim",
	}
}

// claimed returns the pod's volumes that the API server, not the node, knows how to find, as far as a container mounts
// them.
func claimed(pod *corev1.Pod) ([]corev1.Volume, error) {
	mounted, devices := uses(pod)
	var volumes []corev1.Volume
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil && v.Ephemeral == nil && v.CSI == nil {
			continue
		}
		if container, ok := devices[v.Name]; ok {
			return nil, &Error{
				Reason: ReasonPodUnsupported, Object: podObject(pod), Field: "spec.containers[" + container + "].volumeDevices[" + v.Name + "]",
				Message: "asks for a raw block device, and a FUSE volume is a file system",
				Cure:    "name the volume in volumeMounts instead of volumeDevices",
			}
		}
		if mounted[v.Name] {
			volumes = append(volumes, v)
		}
	}
	return volumes, nil
}

// uses returns the names of volumes that a container mounts, and for those used as a device the container.
func uses(pod *corev1.Pod) (mounted map[string]bool, devices map[string]string) {
	mounted, devices = map[string]bool{}, map[string]string{}
	visit := func(name string, mounts []corev1.VolumeMount, devs []corev1.VolumeDevice) {
		for _, m := range mounts {
			mounted[m.Name] = true
		}
		for _, d := range devs {
			devices[d.Name] = name
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		visit(c.Name, c.VolumeMounts, c.VolumeDevices)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		visit(c.Name, c.VolumeMounts, c.VolumeDevices)
	}
	return mounted, devices
}

// podAllows refuses pods in which a sidecar could never reach its session.
func podAllows(pod *corev1.Pod, volumes []corev1.Volume) error {
	if len(volumes) == 0 || pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return nil
	}
	return &Error{
		Reason: ReasonPodUnsupported, Object: podObject(pod), Field: "spec.hostUsers",
		Message: "asks for a user namespace, in which its sidecar would have an unknown user id",
		Cure:    "remove hostUsers: false, or the volume " + volumes[0].Name,
	}
}

func podWarnings(pod *corev1.Pod, volume string) []string {
	if share := pod.Spec.ShareProcessNamespace; share == nil || !*share {
		return nil
	}
	return []string{"volume " + volume + ": the pod shares its process namespace, so its containers can see and, as root, stop the " +
		"volume's sidecar and read its memory; remove shareProcessNamespace: true if they shall not"}
}

func podObject(pod *corev1.Pod) string { return "Pod " + pod.Namespace + "/" + pod.Name }

func volumeField(name string) string { return "spec.volumes[" + name + "]" }

// sortedKeys makes errors and warnings about maps the same on every call.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
