package sidecar

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// parameterPrefix begins the parameters of a StorageClass that are for Kubernetes' own sidecars and never reach a volume.
const parameterPrefix = "csi.storage.k8s.io/"

// errUnread: Outline met a claim of which nobody can say yet what it will be bound to.
var errUnread = errors.New("the claim's volume is not known yet")

// Classes reads StorageClasses.
type Classes interface {
	// StorageClass returns a class by its name, and for "" the cluster's default class.
	StorageClass(ctx context.Context, name string) (*storagev1.StorageClass, error)
}

// Outlined is what can be known of a pod's volumes when the pod is created.
type Outlined struct {
	// Mounts are ours, in the order of the pod's volumes. Their Volumes have no Secret, and what has no PersistentVolume yet
	// is described by its StorageClass.
	Mounts []Mount
	// Unknown are volumes of which nobody can say whether they are ours, because the claim is not there or has neither a
	// StorageClass nor a PersistentVolume.
	Unknown []string
}

// Outline tells which volumes of a pod are ours and what their sidecars look like. Unlike Resolve it reads no Secret, passes
// over volumes of other drivers, and needs no claim to be bound: the scheduler may want to see the pod first.
//
// The error is an *Error for the first volume of ours that cannot be used; it is transient if the API server did not answer.
func (r *Resolver) Outline(ctx context.Context, pod *corev1.Pod) (Outlined, error) {
	var out Outlined
	if r.classes == nil {
		return out, errors.New("an outline needs StorageClasses")
	}
	mounted, _ := uses(pod)
	for _, v := range pod.Spec.Volumes {
		if !mounted[v.Name] {
			continue
		}
		src, err := r.outline(ctx, pod, v)
		var e *Error
		switch {
		case errors.Is(err, errUnread):
			out.Unknown = append(out.Unknown, v.Name)
			continue
		case errors.As(err, &e) && e.Reason == ReasonForeignDriver:
			continue
		case err != nil:
			return Outlined{}, err
		}
		src.Outline = true
		m, err := r.Describe(src)
		if err != nil {
			return Outlined{}, err
		}
		out.Mounts = append(out.Mounts, m)
	}
	if len(out.Mounts) > 0 {
		return out, podAllows(pod, []corev1.Volume{{Name: out.Mounts[0].Volume.Name}})
	}
	return out, nil
}

// OutlineVolumes describes named volumes of a pod, whether a container mounts them or not. Claims must exist; one that was unbound
// at admission may be bound since.
func (r *Resolver) OutlineVolumes(ctx context.Context, pod *corev1.Pod, names []string) ([]Mount, error) {
	mounts := make([]Mount, 0, len(names))
	for _, name := range names {
		at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		if at < 0 {
			return nil, &Error{Reason: ReasonPodUnsupported, Object: podObject(pod), Field: volumeField(name), Message: "has no such volume", Cure: "create the pod again"}
		}
		src, err := r.outline(ctx, pod, pod.Spec.Volumes[at])
		if errors.Is(err, errUnread) {
			err = &Error{Reason: ReasonClaimPending, Object: podObject(pod), Field: volumeField(name), Transient: true,
				Message: "waits for its claim", Cure: "look at the claim's events"}
		}
		if err != nil {
			return nil, err
		}
		src.Outline = true
		m, err := r.Describe(src)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// outline finds what describes a volume: a PersistentVolume, a StorageClass or the pod itself.
func (r *Resolver) outline(ctx context.Context, pod *corev1.Pod, v corev1.Volume) (Source, error) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return r.outlineClaim(ctx, pod, v.Name, v.PersistentVolumeClaim)
	case v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil:
		t := v.Ephemeral.VolumeClaimTemplate
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
		claim.Namespace, claim.Name = pod.Namespace, v.Name
		return r.outlineClass(ctx, v.Name, claim, false)
	case v.CSI != nil:
		return r.describeInline(pod, v)
	}
	return Source{}, &Error{Reason: ReasonForeignDriver, Object: podObject(pod), Message: "has a volume of another kind"}
}

func (r *Resolver) outlineClaim(ctx context.Context, pod *corev1.Pod, volume string, ref *corev1.PersistentVolumeClaimVolumeSource) (Source, error) {
	claim, err := r.objects.PersistentVolumeClaim(ctx, pod.Namespace, ref.ClaimName)
	if apierrors.IsNotFound(err) {
		return Source{}, errUnread
	}
	if err != nil {
		return Source{}, Unread(claimObject(pod.Namespace, ref.ClaimName), err)
	}
	if claim.Spec.VolumeName == "" {
		return r.outlineClass(ctx, volume, claim, ref.ReadOnly)
	}
	pv, err := r.objects.PersistentVolume(ctx, claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return Source{}, errUnread
	}
	if err != nil {
		return Source{}, Unread(volumeObject(claim.Spec.VolumeName), err)
	}
	if err := r.served(pv, claim); err != nil {
		return Source{}, err
	}
	return boundSource(volume, claim, pv, ref.ReadOnly), nil
}

// outlineClass describes a volume that a provisioner has yet to make. Provisioners copy a class's parameters and mount options
// into their volumes.
func (r *Resolver) outlineClass(ctx context.Context, volume string, claim *corev1.PersistentVolumeClaim, readOnly bool) (Source, error) {
	name := ""
	if claim.Spec.StorageClassName != nil {
		if name = *claim.Spec.StorageClassName; name == "" {
			return Source{}, errUnread // any PersistentVolume without a class may become its own
		}
	}
	if r.classes == nil {
		return Source{}, errUnread // whoever has none asks about claims that are bound
	}
	class, err := r.classes.StorageClass(ctx, name)
	if apierrors.IsNotFound(err) {
		return Source{}, errUnread
	}
	if err != nil {
		return Source{}, Unread("StorageClass "+name, err)
	}
	if !slices.Contains(r.drivers, class.Provisioner) {
		return Source{}, &Error{Reason: ReasonForeignDriver, Object: claimObject(claim.Namespace, claim.Name), Message: "has a class of another provisioner"}
	}
	attributes := maps.Clone(class.Parameters)
	maps.DeleteFunc(attributes, func(key, value string) bool { return strings.HasPrefix(key, parameterPrefix) || templated(value) })
	return Source{
		Name:              volume,
		Claim:             claim.Name,
		Object:            "StorageClass " + class.Name,
		AttributesField:   "parameters",
		Attributes:        attributes,
		MountOptions:      slices.DeleteFunc(slices.Clone(class.MountOptions), templated),
		MountOptionsField: "mountOptions",
		ReadOnly:          readOnly || onlyReaders(claim.Spec.AccessModes),
		Annotations:       claim.Annotations,
		AnnotationsObject: claimObject(claim.Namespace, claim.Name),
	}, nil
}

// templated is true for what the provisioner has yet to fill in.
func templated(text string) bool { return strings.Contains(text, "${") }
