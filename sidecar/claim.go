package sidecar

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-helpers/storage/ephemeral"
)

// selectedNode is the annotation by which the scheduler tells a provisioner that a claim with WaitForFirstConsumer has
// found its node (k8s.io/component-helpers/storage/volume).
const selectedNode = "volume.kubernetes.io/selected-node"

// claimSource follows a claim to its PersistentVolume and Secret.
func (r *Resolver) claimSource(ctx context.Context, pod *corev1.Pod, volume, name string, readOnly, forPod bool) (Source, error) {
	claim, err := r.claim(ctx, pod, volume, name, forPod)
	if err != nil {
		return Source{}, err
	}
	pv, err := r.volume(ctx, claim)
	if err != nil {
		return Source{}, err
	}
	src := boundSource(volume, claim, pv, readOnly)
	kind, err := src.client()
	if err != nil {
		return Source{}, err
	}
	if !Clients[kind].Secret {
		return src, nil
	}
	ref := pv.Spec.CSI.NodePublishSecretRef
	if ref == nil || ref.Name == "" {
		return Source{}, &Error{
			Reason: ReasonSecretNotFound, Object: src.Object, Field: "spec.csi.nodePublishSecretRef",
			Message: "names no Secret, and a " + string(kind) + " volume cannot be mounted without one",
			Cure:    "name a Secret with the volume's credentials there; in a StorageClass set csi.storage.k8s.io/node-publish-secret-name and -namespace",
		}
	}
	src.Secret, err = r.secret(ctx, ref.Namespace, ref.Name, src.Object+" names it in spec.csi.nodePublishSecretRef")
	return src, err
}

// boundSource is the volume that a claim is bound to, without its Secret.
func boundSource(volume string, claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume, readOnly bool) Source {
	s := Source{
		Name:     volume,
		ReadOnly: readOnly || pv.Spec.CSI.ReadOnly || onlyReaders(claim.Spec.AccessModes) || onlyReaders(pv.Spec.AccessModes),
		Alone:    slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod),
	}
	s.Fill(pv, claim)
	return s
}

// Fill takes over what a PersistentVolume of ours and its claim say of a volume, but for the access to it. Attributes that are there already are the
// PersistentVolume's, as the kubelet repeats them. claim is nil where it cannot be had.
func (s *Source) Fill(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) {
	s.Handle, s.PersistentVolume, s.Object = pv.Spec.CSI.VolumeHandle, pv.Name, volumeObject(pv.Name)
	s.AttributesField, s.MountOptionsField = "spec.csi.volumeAttributes", "spec.mountOptions"
	if s.Attributes == nil {
		s.Attributes = pv.Spec.CSI.VolumeAttributes
	}
	s.MountOptions = pv.Spec.MountOptions
	if older := pv.Annotations[corev1.MountOptionAnnotation]; older != "" { // for the kubelet too it takes the field's place
		s.MountOptions, s.MountOptionsField = []string{older}, "metadata.annotations["+corev1.MountOptionAnnotation+"]"
	}
	if ref := pv.Spec.CSI.NodePublishSecretRef; ref != nil && ref.Name != "" {
		s.SecretObject = secretObject(ref.Namespace, ref.Name)
	}
	if claim != nil {
		s.Claim, s.Annotations, s.AnnotationsObject = claim.Name, claim.Annotations, claimObject(claim.Namespace, claim.Name)
	}
	s.applyWish(pv.Annotations)
}

func (r *Resolver) claim(ctx context.Context, pod *corev1.Pod, volume, name string, forPod bool) (*corev1.PersistentVolumeClaim, error) {
	object := claimObject(pod.Namespace, name)
	claim, err := r.objects.PersistentVolumeClaim(ctx, pod.Namespace, name)
	switch {
	case apierrors.IsNotFound(err) && forPod:
		return nil, &Error{
			Reason: ReasonClaimNotFound, Object: object, Transient: true,
			Message: fmt.Sprintf("is not found yet; Kubernetes makes it for the ephemeral volume %s of %s", volume, podObject(pod)),
			Cure:    "wait, and look at the events of the pod if it takes long",
		}
	case apierrors.IsNotFound(err):
		return nil, &Error{
			Reason: ReasonClaimNotFound, Object: object,
			Message: fmt.Sprintf("is not found, and volume %s of %s needs it", volume, podObject(pod)),
			Cure:    "create the claim in namespace " + pod.Namespace + ", or correct claimName in the pod",
		}
	case err != nil:
		return nil, Unread(object, err)
	}
	if forPod {
		if err := ephemeral.VolumeIsForPod(pod, claim); err != nil {
			return nil, &Error{
				Reason: ReasonClaimInvalid, Object: object, Field: "metadata.ownerReferences", Err: err,
				Message: fmt.Sprintf("has the name of the ephemeral volume %s of %s and does not belong to that pod", volume, podObject(pod)),
				Cure:    "delete or rename the claim, or rename the pod or its volume",
			}
		}
	}
	return claim, claimUsable(claim)
}

// claimUsable checks what a claim says about itself.
func claimUsable(claim *corev1.PersistentVolumeClaim) error {
	e := &Error{Object: claimObject(claim.Namespace, claim.Name)}
	switch {
	case claim.DeletionTimestamp != nil:
		e.Reason, e.Field = ReasonClaimInvalid, "metadata.deletionTimestamp"
		e.Message = "is being deleted"
		e.Cure = "wait until it is gone and create it again, or use another claim"
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		e.Reason, e.Field = ReasonPodUnsupported, "spec.volumeMode"
		e.Message = "asks for a raw block device, and a FUSE volume is a file system"
		e.Cure = "make a claim with volumeMode: Filesystem"
	case claim.Status.Phase == corev1.ClaimLost:
		e.Reason, e.Field = ReasonClaimLost, "status.phase"
		e.Message = "has lost its PersistentVolume " + claim.Spec.VolumeName
		e.Cure = "restore the PersistentVolume from a backup, or delete the claim and make a new one"
	case claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "":
		return pending(claim)
	default:
		return nil
	}
	return e
}

// pending says what an unbound claim is waiting for, as far as the claim itself tells.
func pending(claim *corev1.PersistentVolumeClaim) error {
	e := &Error{
		Reason: ReasonClaimPending, Object: claimObject(claim.Namespace, claim.Name), Field: "status.phase", Transient: true,
		Message: "is not bound to a PersistentVolume yet",
	}
	class := ""
	if claim.Spec.StorageClassName != nil {
		class = *claim.Spec.StorageClassName
	}
	switch {
	case claim.Spec.VolumeName != "":
		e.Cure = "check that PersistentVolume " + claim.Spec.VolumeName +
			" exists, is Available, and has the claim's storageClassName, accessModes and at least its size"
	case class == "":
		e.Cure = "create a PersistentVolume that fits its accessModes, size and empty storageClassName, or name one in spec.volumeName"
	case claim.Annotations[selectedNode] != "":
		e.Cure = fmt.Sprintf("the scheduler has chosen node %s and the provisioner of StorageClass %s must make the volume; look at the claim's events",
			claim.Annotations[selectedNode], class)
	default:
		e.Cure = fmt.Sprintf("look at the claim's events for the provisioner of StorageClass %s; if that class has volumeBindingMode: WaitForFirstConsumer, "+
			"the pod must be placed by the scheduler (nodeSelector) and not by spec.nodeName", class)
	}
	return e
}

// volume returns the PersistentVolume of a bound claim, if it is one of ours.
func (r *Resolver) volume(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	name := claim.Spec.VolumeName
	pv, err := r.objects.PersistentVolume(ctx, name)
	if apierrors.IsNotFound(err) {
		return nil, &Error{
			Reason: ReasonVolumeNotFound, Object: volumeObject(name),
			Message: "is not found, and " + claimObject(claim.Namespace, claim.Name) + " is bound to it",
			Cure:    "restore the PersistentVolume, or delete the claim and make a new one",
		}
	}
	if err != nil {
		return nil, Unread(volumeObject(name), err)
	}
	if err := r.served(pv, claim); err != nil {
		return nil, err
	}
	return pv, volumeUsable(pv, claim)
}

// served refuses a PersistentVolume of another driver.
func (r *Resolver) served(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	var is string
	switch {
	case pv.Spec.CSI == nil:
		is = "which is not a CSI volume"
	case !slices.Contains(r.drivers, pv.Spec.CSI.Driver):
		is = "of driver " + pv.Spec.CSI.Driver
	default:
		return nil
	}
	return r.foreign(&Error{
		Object: claimObject(claim.Namespace, claim.Name), Field: "spec.volumeName",
		Message: "is bound to " + volumeObject(pv.Name) + " " + is,
	})
}

func (r *Resolver) foreign(e *Error) *Error {
	e.Reason = ReasonForeignDriver
	e.Message += "; this node serves volumes of " + strings.Join(r.drivers, ", ") + " only"
	e.Cure = "schedule the pod on an ordinary node, or use a volume of " + r.drivers[0]
	return e
}

// volumeUsable checks that a PersistentVolume is whole and belongs to the claim. The claimRef is what keeps a claim of one
// namespace from using the volume of another.
func volumeUsable(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	e := &Error{Reason: ReasonVolumeInvalid, Object: volumeObject(pv.Name)}
	ref := pv.Spec.ClaimRef
	switch {
	case ref == nil:
		e.Field, e.Transient = "spec.claimRef", true
		e.Message = "is not bound to a claim yet, though " + claimObject(claim.Namespace, claim.Name) + " names it"
		e.Cure = "wait for the binding; if it does not come, compare storageClassName, accessModes and size of both"
	case ref.Namespace != claim.Namespace || ref.Name != claim.Name:
		e.Field = "spec.claimRef"
		e.Message = fmt.Sprintf("belongs to %s and not to %s", claimObject(ref.Namespace, ref.Name), claimObject(claim.Namespace, claim.Name))
		e.Cure = "use the claim that the volume belongs to, or make a PersistentVolume of its own for this claim"
	case ref.UID != "" && claim.UID != "" && ref.UID != claim.UID:
		e.Field = "spec.claimRef.uid"
		e.Message = "belongs to an earlier claim with the name of " + claimObject(claim.Namespace, claim.Name)
		e.Cure = "remove spec.claimRef from the volume if the new claim may have its data"
	case pv.Status.Phase == corev1.VolumeFailed:
		e.Field = "status.phase"
		e.Message = "has failed"
		e.Cure = "look at status.message of the PersistentVolume"
	case pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		e.Reason, e.Field = ReasonPodUnsupported, "spec.volumeMode"
		e.Message = "is a raw block device, and a FUSE volume is a file system"
		e.Cure = "make a PersistentVolume with volumeMode: Filesystem"
	case strings.TrimSpace(pv.Spec.CSI.VolumeHandle) == "":
		e.Field = "spec.csi.volumeHandle"
		e.Message = "has an empty volumeHandle"
		e.Cure = "give it a handle that is unique in the cluster, the volume's own name for instance"
	default:
		return nil
	}
	return e
}

// onlyReaders is true if nobody may write.
func onlyReaders(modes []corev1.PersistentVolumeAccessMode) bool {
	return len(modes) > 0 && !slices.ContainsFunc(modes, func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadOnlyMany })
}

// Unread is the error for an object that may well exist. A node is forbidden to read an object until the API server has
// seen that a pod on the node needs it, so that Forbidden is worth another attempt too.
func Unread(object string, err error) error {
	e := &Error{Reason: ReasonUnavailable, Object: object, Transient: true, Err: err}
	if apierrors.IsForbidden(err) {
		e.Message = "may not be read"
		e.Cure = "wait a moment if the pod has just been scheduled; otherwise allow the node, or the driver's service account, to get it"
		return e
	}
	e.Message = "cannot be read: " + err.Error()
	e.Cure = "wait until the API server answers"
	return e
}

func claimObject(namespace, name string) string {
	return "PersistentVolumeClaim " + namespace + "/" + name
}

func volumeObject(name string) string { return "PersistentVolume " + name }
