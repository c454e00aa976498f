package sidecar

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// inlineSource reads a volume that the pod describes itself.
func (r *Resolver) inlineSource(ctx context.Context, pod *corev1.Pod, v corev1.Volume) (Source, error) {
	src, err := r.describeInline(pod, v)
	if err != nil {
		return Source{}, err
	}
	name := v.CSI.NodePublishSecretRef.Name
	src.SecretObject = secretObject(pod.Namespace, name)
	src.Secret, err = r.secret(ctx, pod.Namespace, name, src.Object+" names it in "+volumeField(v.Name)+".csi.nodePublishSecretRef")
	return src, err
}

// describeInline reads what the pod says. Its author need not be an administrator, so Describe allows such a volume fewer
// attributes (Source.Tenant).
func (r *Resolver) describeInline(pod *corev1.Pod, v corev1.Volume) (Source, error) {
	field := volumeField(v.Name) + ".csi"
	if !slices.Contains(r.drivers, v.CSI.Driver) {
		return Source{}, r.foreign(&Error{
			Object: podObject(pod), Field: field + ".driver", Message: "has the inline volume " + v.Name + " of driver " + v.CSI.Driver,
		})
	}
	src := Source{
		Name:            v.Name,
		Handle:          string(SessionID(pod.UID, v.Name)),
		Object:          podObject(pod),
		AttributesField: field + ".volumeAttributes",
		Attributes:      v.CSI.VolumeAttributes,
		ReadOnly:        v.CSI.ReadOnly != nil && *v.CSI.ReadOnly,
		Tenant:          true,
	}
	kind, err := src.client()
	if err != nil {
		return Source{}, err
	}
	ref := v.CSI.NodePublishSecretRef
	if ref == nil || ref.Name == "" {
		return Source{}, &Error{
			Reason: ReasonSecretNotFound, Object: src.Object, Field: field + ".nodePublishSecretRef",
			Message: "names no Secret for the inline volume " + v.Name + ", and a " + string(kind) + " volume cannot be mounted without one",
			Cure:    "name a Secret of namespace " + pod.Namespace + " there",
		}
	}
	return src, nil
}
